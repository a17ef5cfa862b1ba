"""Alerts: requests that were refused to whoever sent them, in the audit trail and the log (PS3.15 Section A.5.3.11).

Told is who wanted what, and what he lacked: a role, a scope, a login, a token that holds, or a form of our own page.
Whoever shows nothing to be known by and only asks is led to the login, and that is no alert.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from dicom_node.audit import RESTRICTED, AuditTrail, Happening
from dicom_node.core.access import Need, Visitor
from dicom_node.core.uid import is_uid
from dicom_node.telemetry import Metrics
from dicom_node.web.line_limits import LeftOut, LineLimits

log = logging.getLogger(__name__)


class Lack(StrEnum):
    """What a request was refused for; the metrics call it so."""

    ROLE = "role"
    SCOPE = "scope"
    LOGIN = "login"
    TOKEN = "token"
    FORM = "form"


_WORDS: Mapping[Lack, str] = {
    Lack.ROLE: "it needs {need}",
    Lack.SCOPE: "it needs {need}",
    Lack.LOGIN: "nobody had logged in",
    Lack.TOKEN: "the token does not hold",
    Lack.FORM: "the form was not of the session's own page",
}


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A request that was refused."""

    lack: Lack
    need: Need
    method: str
    #: As it was asked for; of it a study's UID is told and nothing else.
    path: str
    #: The form of its address, as `needs` has it.
    form: str
    visitor: Visitor

    @property
    def words(self) -> str:
        """What was wanted and what it lacked; no word is the sender's own."""
        return f"{self.method} {self.form}: {_WORDS[self.lack].format(need=needed(self.need))}"

    @property
    def study(self) -> str:
        """The study that it was about, or nothing."""
        _, _, behind = self.path.partition("/studies/")
        uid = behind.partition("/")[0]
        return uid if is_uid(uid) else ""


def needed(need: Need) -> str:
    """The role or the scope that is needed, in words."""
    wanted = [f"the role {need.role}"] if need.role else []
    wanted += [f"a token with the scope {need.scope}"] if need.scope else []
    return " or ".join(wanted)


@dataclass(frozen=True, kw_only=True)
class Alerts:
    """Tells of them."""

    trail: AuditTrail
    metrics: Metrics
    limits: LineLimits
    clock: Callable[[], float]

    def __post_init__(self) -> None:
        self.metrics.may_refuse("request", Lack)

    def counted(self, refused: Refused) -> Callable[[], None] | None:
        """Count it; what writes it down, and may wait for a disk and the index, where that was not done just now."""
        self.metrics.refused("request", refused.lack)
        visitor = refused.visitor
        what = f"{refused.words} {refused.study}"
        if visitor.known:
            # By name alone: whoever is known may send from any number of addresses.
            left_out = self.limits.admit(visitor.actor, f"{visitor.address} {what}", is_known=True)
        else:
            left_out = self.limits.admit(visitor.address, what, is_known=False)
        return None if left_out is None else partial(self._tell, refused, left_out)

    def _tell(self, refused: Refused, left_out: LeftOut) -> None:
        visitor, study, words = refused.visitor, refused.study, refused.words
        happening = Happening(
            event=RESTRICTED,
            at=self.clock(),
            user=visitor.name,
            address=visitor.address,
            succeeded=False,
            description=words + left_out.words,
            studies=[study] if study else (),
            resource=refused.form,
        )
        self.trail.note(happening)
        actor = visitor.actor if visitor.known else "nobody"
        facts = {"actor": actor, "address": visitor.address, "reason": words, "count": left_out.total + 1}
        log.warning("a request was refused", extra=facts)
