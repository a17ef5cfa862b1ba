"""Who may do what: roles of people, scopes of programs, and what a request needs of either."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

#: A user's name: it stands in histories and audit messages, so it is short and has no spaces.
USER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,39}")


class Role(StrEnum):
    """What a person may do, each more than the one before."""

    #: Sees studies and results.
    READER = "reader"
    #: Also has studies read or sent again, and withdraws results.
    OPERATOR = "operator"
    #: Also sees and changes how the node works.
    ADMIN = "admin"

    def covers(self, other: "Role") -> bool:
        """Whether whoever has this role may do what the other one may."""
        order = list(Role)
        return order.index(self) >= order.index(other)


class Scope(StrEnum):
    """What a program may do by its token."""

    DICOMWEB_READ = "dicomweb:read"
    DICOMWEB_WRITE = "dicomweb:write"
    METRICS = "metrics"


@dataclass(frozen=True, kw_only=True)
class Need:
    """What a request asks of whoever sends it; without role and scope nobody is let in."""

    #: Anybody may.
    open: bool = False
    #: The least role of a person; None: no person may.
    role: Role | None = None
    #: What a program's token must be for; None: no program may.
    scope: Scope | None = None


@dataclass(frozen=True, kw_only=True)
class Visitor:
    """Who sends a request: a person in a session, a program with a token, or nobody that we know."""

    #: Of the user, or of the token; empty: nobody.
    name: str = ""
    role: Role | None = None
    scopes: Collection[str] = ()
    #: Where the request comes from.
    address: str = ""
    #: What a form of this session must carry; empty for a program.
    csrf: str = ""

    @property
    def known(self) -> bool:
        """Whether it is anybody."""
        return bool(self.name)

    @property
    def actor(self) -> str:
        """What the history calls it."""
        return f"user {self.name}" if self.role else f"token {self.name}"

    def may(self, role: str) -> bool:
        """Whether it is a person with at least this role."""
        return self.role is not None and self.role.covers(Role(role))

    def meets(self, need: Need) -> bool:
        """Whether it may send a request that needs this."""
        if need.open:
            return True
        by_role = self.role is not None and need.role is not None and self.role.covers(need.role)
        return by_role or (need.scope is not None and need.scope.value in self.scopes)


NOBODY = Visitor()
