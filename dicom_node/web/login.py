"""Logging in and out: by password, by a link that holds once, or by the identity provider."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from dicom_node.archive.index import Index
from dicom_node.archive.lines import duration_in_words
from dicom_node.audit import LOGIN, LOGOUT, AuditTrail, Happening
from dicom_node.core.access import USER_NAME, Visitor
from dicom_node.core.errors import AccountError
from dicom_node.credentials import Passwords
from dicom_node.web.deeds import form_of
from dicom_node.web.doorkeeper import Doorkeeper
from dicom_node.web.gate import visitor_of
from dicom_node.web.line_limits import LineLimits
from dicom_node.web.login_limits import LoginLimits
from dicom_node.web.oidc import ANSWER_SECONDS, IdentityProvider, ProviderError
from dicom_node.web.pages import Pages

log = logging.getLogger(__name__)

_STATE_COOKIE = "provider"

_WRONG = "That user and password do not go together."


@dataclass(frozen=True, kw_only=True)
class Login:
    """What logging in needs."""

    index: Index
    doorkeeper: Doorkeeper
    passwords: Passwords
    limits: LoginLimits
    audit: AuditTrail
    #: Of the audit trail, about what can be tried without end.
    lines: LineLimits
    pages: Pages
    clock: Callable[[], float]
    provider: IdentityProvider | None = None

    def form(self, status: int, *, after: str, words: str = "") -> HTMLResponse:
        """The login page, with what is wrong."""
        with_provider = self.provider is not None
        page = self.pages.login(self.clock(), after=after, words=words, with_provider=with_provider)
        return HTMLResponse(page, status)

    def by_password(self, given: Mapping[str, str], address: str, session: str) -> Response:
        """Try a password; the answer, with the cookie of a new session where it was right."""
        user, after = given.get("user", "").strip(), own_path(given.get("next", ""))
        if wait := self.limits.try_once(user, address):
            return self._too_many(user, address, wait, after, "wrong passwords for this user")
        row = self.index.users.find(user)
        # Whoever is disabled is answered as one whom nobody knows.
        held, password = (row.password if row and not row.disabled else ""), given.get("password", "")
        if not self.passwords.fits(password, held):
            self._note(user, address, "wrong user or password")
            return self.form(HTTPStatus.UNAUTHORIZED, after=after, words=_WRONG)
        self.limits.succeeded(user, address)
        if self.passwords.is_old(held):
            held = self._rehashed(user, password, held)
        return self.let_in(user, address, session, after, "by password", held)

    def _rehashed(self, user: str, password: str, before: str) -> str:
        """The newer hash that is held of a password: ours, or that of a login that was quicker."""
        ours = self.passwords.hash(password)
        held = self.index.users.rehash(user, ours, instead_of=before)
        # Whoever was given another password meanwhile is let in by neither: ours is held nowhere.
        return held if self.passwords.fits(password, held) else ours

    def _too_many(self, user: str, address: str, wait: float, after: str, what: str) -> Response:
        self._note_endless(user, address, "too many attempts")
        words = f"Too many {what} from here. Try again in {duration_in_words(wait)}."
        refused = self.form(HTTPStatus.TOO_MANY_REQUESTS, after=after, words=words)
        refused.headers["Retry-After"] = str(int(wait) + 1)
        return refused

    async def by_provider(self, provider: IdentityProvider, request: Request, own_address: str) -> Response:
        """Whom the identity provider names, if it is a user here; wrong answers count as wrong passwords do."""
        address, session = visitor_of(request.scope).address, self.doorkeeper.session_of(request.headers)
        if wait := self.limits.try_once("", address):
            return self._too_many("", address, wait, "/", "answers that were none")
        kept = request.cookies.get(_STATE_COOKIE, "")
        try:
            user = await provider.user(dict(request.query_params), kept, own_address)
        except ProviderError as error:
            self._note("", address, "the identity provider did not say who it is")
            return self.form(HTTPStatus.UNAUTHORIZED, after="/", words=str(error))
        row = await run_in_threadpool(self.index.users.find, user)
        if row is None or row.disabled:
            self._note(user, address, "known to the identity provider, not here")
            words = "You are known to the identity provider, but are no user of this node; ask whoever runs it."
            return self.form(HTTPStatus.FORBIDDEN, after="/", words=words)
        self.limits.succeeded("", address)
        return await run_in_threadpool(self.let_in, user, address, session, "/", "by identity provider")

    def let_in(
        self, user: str, address: str, session: str, after: str, how: str, password: str | None = None
    ) -> Response:
        """Begin a new session: whatever the browser came with is worth nothing afterwards."""
        try:
            secret = self.index.sessions.begin(user, at=self.clock(), instead_of=session, password=password)
        except AccountError:
            # Removed, disabled or given another password in this very moment.
            self._note(user, address, "no user any more")
            return self.form(HTTPStatus.UNAUTHORIZED, after="/", words=_WRONG)
        self.audit.note(Happening(event=LOGIN, at=self.clock(), user=user, address=address, description=how))
        log.info("a user logged in", extra={"actor": f"user {user}", "address": address})
        answer = RedirectResponse(after, HTTPStatus.SEE_OTHER)
        self.doorkeeper.keep(answer, secret)
        return answer

    def out(self, session: str, visitor: Visitor) -> Response:
        """End the session."""
        self.index.sessions.end(session)
        self.audit.note(
            Happening(event=LOGOUT, at=self.clock(), user=visitor.name, address=visitor.address, description="")
        )
        answer = RedirectResponse("/login", HTTPStatus.SEE_OTHER)
        self.doorkeeper.drop(answer)
        # Pictures that the browser keeps show patients.
        answer.headers["Clear-Site-Data"] = '"cache"'
        return answer

    def by_link(self, secret: str, address: str, session: str) -> Response:
        """Whom a link lets in that holds once."""
        user = self.index.sessions.take_entry(secret, at=self.clock())
        if user is None:
            self._note_endless("", address, "a link that was used, is over or never was")
            words = "This link was used already, or is over."
            return self.form(HTTPStatus.UNAUTHORIZED, after="/", words=words)
        return self.let_in(user, address, session, "/", "by a link that holds once")

    def _note_endless(self, user: str, address: str, why: str) -> None:
        """Note a failure that nothing bounds; passwords that are looked at are counted by their own limits."""
        left_out = self.lines.admit(f"login {address}", f"{_named(user)} {why}", is_known=False)
        if left_out is not None:
            self._note(user, address, why + left_out.words)

    def _note(self, user: str, address: str, why: str) -> None:
        facts = {"user": _named(user), "address": address, "description": why}
        self.audit.note(Happening(event=LOGIN, at=self.clock(), succeeded=False, **facts))
        log.warning("a login failed", extra={"address": address, "reason": why})


def _named(user: str) -> str:
    """Who was named; what is no name may be a password in the wrong field."""
    return user if USER_NAME.fullmatch(user) else "unknown"


def own_path(text: str) -> str:
    """A path of our own to go to after the login; the first page where it is anything else."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return "/"
    ours = text.startswith("/") and not text.startswith(("//", "/\\")) and not parts.scheme and not parts.netloc
    return text if ours and text.isprintable() and "\\" not in text else "/"


def build_router(login: Login) -> APIRouter:
    """The addresses of logging in and out."""
    router = APIRouter()

    @router.get("/login")
    def form(request: Request) -> Response:
        return login.form(HTTPStatus.OK, after=own_path(request.query_params.get("next", "")))

    @router.post("/login")
    async def by_password(request: Request) -> Response:
        given = await form_of(request)
        address, session = visitor_of(request.scope).address, login.doorkeeper.session_of(request.headers)
        return await run_in_threadpool(login.by_password, given, address, session)

    @router.get("/enter/{secret}")
    def by_link(request: Request, secret: str) -> Response:
        visitor, session = visitor_of(request.scope), login.doorkeeper.session_of(request.headers)
        return login.by_link(secret, visitor.address, session)

    @router.post("/logout")
    def out(request: Request) -> Response:
        return login.out(login.doorkeeper.session_of(request.headers), visitor_of(request.scope))

    if login.provider is not None:
        _add_provider(router, login, login.provider)
    return router


def _add_provider(router: APIRouter, login: Login, provider: IdentityProvider) -> None:
    secure = login.doorkeeper.settings.secure_cookies

    @router.get("/login/provider")
    async def ask(request: Request) -> Response:
        try:
            question = await provider.question(_own_address(request, secure))
        except ProviderError as error:
            return login.form(HTTPStatus.BAD_GATEWAY, after="/", words=str(error))
        answer = RedirectResponse(question.address, HTTPStatus.SEE_OTHER)
        answer.set_cookie(
            _STATE_COOKIE,
            question.kept,
            max_age=ANSWER_SECONDS,
            path="/login/answer",
            httponly=True,
            samesite="lax",
            secure=secure,
        )
        return answer

    @router.get("/login/answer")
    async def answer(request: Request) -> Response:
        told = await login.by_provider(provider, request, _own_address(request, secure))
        # A question is answered once, rightly or not.
        told.delete_cookie(_STATE_COOKIE, path="/login/answer", httponly=True, samesite="lax", secure=secure)
        return told


def _own_address(request: Request, secure: bool) -> str:
    """Where the provider sends the browser back to: registered there, so that a forged Host leads nowhere."""
    scheme = "https" if secure else "http"
    return f"{scheme}://{request.headers.get('host', '')}/login/answer"
