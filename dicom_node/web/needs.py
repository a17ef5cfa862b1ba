"""What each address of the web server needs: one table, and what is not in it is closed to everybody."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from dicom_node.core.access import Need, Role, Scope

OPEN = Need(open=True)
READER = Need(role=Role.READER)
OPERATOR = Need(role=Role.OPERATOR)
ADMIN = Need(role=Role.ADMIN)
CLOSED = Need()

#: Methods that ask and change nothing.
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What one form of address needs, by method."""

    #: Segments between slashes; * is any one, ** at the end is whatever follows.
    path: str
    read: Need = CLOSED
    write: Need = CLOSED
    #: A person who is not let in is led to the login.
    is_page: bool = False
    #: Pages ask for it by themselves: that nobody sits there is not to be hidden by it.
    is_automatic: bool = False
    #: Nobody is looked up for it: the answer waits for no database and no thread.
    is_blind: bool = False

    def fits(self, path: str) -> bool:
        """Whether this is the rule for a path."""
        if self.path.endswith("/**"):
            return path.startswith(self.path[:-2]) or path == self.path[:-3]
        wanted, given = _segments(self.path), path.split("/")
        return len(wanted) == len(given) and all(
            want == have or (want == "*" and have != "") for want, have in zip(wanted, given, strict=True)
        )

    def need(self, method: str) -> Need:
        """What a request by this method needs."""
        return self.read if method in SAFE_METHODS else self.write


@cache
def _segments(path: str) -> Sequence[str]:
    return path.split("/")


_METRICS = Need(role=Role.ADMIN, scope=Scope.METRICS)
_FIND = Need(role=Role.READER, scope=Scope.DICOMWEB_READ)
_STORE = Need(role=Role.OPERATOR, scope=Scope.DICOMWEB_WRITE)

#: The first that fits holds; what is asked for hundreds of times a study is looked for first.
RULES: Sequence[Rule] = (
    Rule(path="/dicomweb/**", read=_FIND, write=_STORE),
    Rule(path="/healthz", read=OPEN, is_blind=True),
    Rule(path="/static/**", read=OPEN),
    Rule(path="/login", read=OPEN, write=OPEN),
    Rule(path="/login/provider", read=OPEN),
    Rule(path="/login/answer", read=OPEN),
    Rule(path="/enter/*", read=OPEN),
    Rule(path="/logout", write=READER),
    Rule(path="/metrics", read=_METRICS),
    Rule(path="/viewer/**", read=READER, is_page=True),
    Rule(path="/", read=READER, is_page=True),
    Rule(path="/overview", read=READER, is_page=True),
    Rule(path="/events", read=READER, is_automatic=True),
    Rule(path="/worklist", read=READER, is_automatic=True),
    Rule(path="/search", write=READER),
    Rule(path="/studies/*", read=READER, is_page=True),
    Rule(path="/studies/*/report/*", read=READER, is_page=True),
    Rule(path="/studies/*/preview.png", read=READER, is_automatic=True),
    Rule(path="/studies/*/series/*/slices", read=READER),
    Rule(path="/studies/*/slices/*", read=READER),
    Rule(path="/studies/*/requeue", write=OPERATOR),
    Rule(path="/studies/*/resend", write=OPERATOR),
    Rule(path="/studies/*/withdraw", write=OPERATOR),
    Rule(path="/studies/*/priority", write=ADMIN),
    Rule(path="/peers/*/echo", write=ADMIN),
    Rule(path="/queue", read=ADMIN, is_page=True),
    Rule(path="/users", read=ADMIN, is_page=True),
    Rule(path="/users/*", write=ADMIN),
    Rule(path="/tokens/*", write=ADMIN),
    Rule(path="/audit", read=ADMIN, is_page=True),
    Rule(path="/rules", read=ADMIN, write=ADMIN, is_page=True),
)


def rules_with(metrics: str) -> Sequence[Rule]:
    """The rules, and who may ask for metrics by its setting."""
    return [replace(rule, read=OPEN) if rule.path == "/metrics" and metrics == "open" else rule for rule in RULES]


def rule_of(path: str, rules: Sequence[Rule] = RULES) -> Rule | None:
    """The rule for a path; None: nobody may."""
    return next((rule for rule in rules if rule.fits(path)), None)


#: What a browser is told of every answer: nothing from elsewhere, in no frame, and UIDs stay out of caches and logs.
SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer: browsers then hide the Origin of our own forms, too.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
