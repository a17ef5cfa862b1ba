"""The page of users and tokens, for admins: who may see the pages, and what programs ask by.

What `dicom-node users` and `tokens` do can be done here, too, with the same line in the audit trail. A new password or
token is shown on the answer that makes it, once, and nowhere else: no address holds it, and no cache keeps it.
"""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from dicom_node.archive.index import Index
from dicom_node.audit import USERS_CHANGED, AuditTrail, Happening
from dicom_node.core.access import USER_NAME, Role, Scope, Visitor
from dicom_node.core.errors import AccountError
from dicom_node.credentials import Passwords, new_password
from dicom_node.web.deeds import form_of
from dicom_node.web.gate import visitor_of
from dicom_node.web.pages import Pages

log = logging.getLogger(__name__)

_DAY_SECONDS = 86400.0

#: Nobody asks for a token that holds longer; what is to last is made without an end.
_MOST_DAYS = 3650

Form = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a form changed."""

    #: In words, as the audit trail has them.
    words: str
    #: The part of the page that shows it.
    place: str
    #: A new password or token; empty: none was made.
    secret: str = ""


@dataclass(frozen=True, kw_only=True)
class AccountsPage:
    """What the page needs."""

    index: Index
    pages: Pages
    passwords: Passwords
    audit: AuditTrail
    clock: Callable[[], float]

    def page(
        self, visitor: Visitor, status: int = HTTPStatus.OK, *, fault: str = "", done: Done | None = None
    ) -> Response:
        """The page, with what was wrong or what was made."""
        facts = {
            "users": self.index.users.rows(),
            "tokens": self.index.tokens.rows(),
            "roles": list(Role),
            "scopes": list(Scope),
            "fault": fault,
            "done": done,
        }
        return HTMLResponse(self.pages.accounts(visitor, self.clock(), **facts), status)

    def add_user(self, form: Form, visitor: Visitor) -> Done:
        """Make a user with a password by chance, or without one."""
        name, role = form.get("name", "").strip(), _role(form)
        secret = "" if "no-password" in form else new_password()
        held = self.passwords.hash(secret) if secret else ""
        self.index.users.add(name, role=role, password=held, at=self.clock(), by=visitor.name)
        return Done(words=f"user {name} added with the role {role}", place=f"user-{name}", secret=secret)

    def set_role(self, form: Form, visitor: Visitor) -> Done:
        """Give a user another role."""
        name, role = _other(form, visitor), _role(form)
        self.index.users.change(name, role=role, at=self.clock(), by=visitor.name)
        return Done(words=f"user {name} has the role {role}", place=f"user-{name}")

    def set_password(self, form: Form, visitor: Visitor) -> Done:
        """Give a user a password by chance in place of the one that he has."""
        name, secret = form.get("name", ""), new_password()
        self.index.users.change(name, password=self.passwords.hash(secret), at=self.clock(), by=visitor.name)
        return Done(words=f"password of user {name} changed", place=f"user-{name}", secret=secret)

    def disable(self, form: Form, visitor: Visitor) -> Done:
        """Let a user in no more."""
        name = _other(form, visitor)
        self.index.users.change(name, disabled=True, at=self.clock(), by=visitor.name)
        return Done(words=f"user {name} disabled", place=f"user-{name}")

    def enable(self, form: Form, visitor: Visitor) -> Done:
        """Let a user in again."""
        name = form.get("name", "")
        self.index.users.change(name, disabled=False, at=self.clock(), by=visitor.name)
        return Done(words=f"user {name} enabled", place=f"user-{name}")

    def remove_user(self, form: Form, visitor: Visitor) -> Done:
        """Forget a user."""
        name = _other(form, visitor)
        self.index.users.remove(name, by=visitor.name)
        return Done(words=f"user {name} removed", place="users")

    def add_token(self, form: Form, visitor: Visitor) -> Done:
        """Make a token."""
        name, now = form.get("name", "").strip(), self.clock()
        scopes = [scope for scope in Scope if f"scope-{scope}" in form]
        if not scopes:
            raise AccountError("say what the token is for: choose one scope or more")
        days = _days(form.get("days", ""))
        expires_at = None if days is None else now + days * _DAY_SECONDS
        secret = self.index.tokens.add(name, scopes=scopes, at=now, expires_at=expires_at, by=visitor.name)
        return Done(words=f"token {name} made for {', '.join(scopes)}", place=f"token-{name}", secret=secret)

    def remove_token(self, form: Form, visitor: Visitor) -> Done:
        """Let a token hold no more."""
        name = form.get("name", "")
        self.index.tokens.remove(name, by=visitor.name)
        return Done(words=f"token {name} removed", place="tokens")

    def answer(self, deed: "Deed", form: Form, visitor: Visitor) -> Response:
        """Do it, and show what came of it; done or not, it is in the audit trail."""
        try:
            done = deed(self, form, visitor)
        except AccountError as error:
            self._note(visitor, _refused(deed, form), succeeded=False)
            return self.page(visitor, HTTPStatus.BAD_REQUEST, fault=f"Nothing was changed: {error}.")
        self._note(visitor, done.words, succeeded=True)
        log.info("users or tokens were changed", extra={"actor": visitor.actor, "reason": done.words})
        if done.secret:
            return self.page(visitor, done=done)
        return RedirectResponse(f"/users#{done.place}", HTTPStatus.SEE_OTHER)

    def _note(self, visitor: Visitor, words: str, *, succeeded: bool) -> None:
        happening = Happening(
            event=USERS_CHANGED,
            at=self.clock(),
            user=visitor.name,
            address=visitor.address,
            description=words,
            succeeded=succeeded,
        )
        self.audit.note(happening)


Deed = Callable[[AccountsPage, Form, Visitor], Done]

#: What can be asked for, by the end of its address.
_DEEDS: Mapping[str, Deed] = {
    "/users/add": AccountsPage.add_user,
    "/users/role": AccountsPage.set_role,
    "/users/password": AccountsPage.set_password,
    "/users/disable": AccountsPage.disable,
    "/users/enable": AccountsPage.enable,
    "/users/remove": AccountsPage.remove_user,
    "/tokens/add": AccountsPage.add_token,
    "/tokens/remove": AccountsPage.remove_token,
}


def build_accounts_page(accounts: AccountsPage) -> APIRouter:
    """The address of the page, and what can be asked for on it."""
    router = APIRouter()

    @router.api_route("/users", methods=["GET", "HEAD"])
    def page(request: Request) -> Response:
        return accounts.page(visitor_of(request.scope))

    for path, deed in _DEEDS.items():
        _add(router, path, accounts, deed)
    return router


def _add(router: APIRouter, path: str, accounts: AccountsPage, deed: Deed) -> None:
    async def change(request: Request) -> Response:
        form = await form_of(request)
        # In a thread: a password is hashed slowly, and the database may let it wait.
        return await run_in_threadpool(accounts.answer, deed, form, visitor_of(request.scope))

    router.add_api_route(path, change, methods=["POST"], response_class=Response)


def _other(form: Form, visitor: Visitor) -> str:
    """Whom the form names: so that an admin stays, nobody takes from himself what lets him in here."""
    name = form.get("name", "")
    if name == visitor.name:
        raise AccountError("this is your own account; have another admin change it, or use `dicom-node users`")
    return name


def _role(form: Form) -> Role:
    given = form.get("role", "")
    if given not in list(Role):
        raise AccountError(f"there is no such role; there are {', '.join(Role)}")
    return Role(given)


def _days(text: str) -> float | None:
    if not text.strip():
        return None
    try:
        days = float(text)
    except ValueError:
        days = math.nan
    if not 0 < days <= _MOST_DAYS:
        raise AccountError(f"a token holds for more than 0 and up to {_MOST_DAYS} days, or, with nothing there, always")
    return days


def _refused(deed: Deed, form: Form) -> str:
    """What was asked in vain; what is no name may be anything, and is not repeated."""
    name = form.get("name", "").strip()
    return f"{deed.__name__.replace('_', ' ')} {name if USER_NAME.fullmatch(name) else ''}".strip()
