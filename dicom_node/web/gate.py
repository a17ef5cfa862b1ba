"""The gate: every request passes here first; who asks, whether he may, and whether a form is of our own page.

It stands around the whole application, mounted parts too, so that no route needs access code of its own: it needs a
line in `needs.RULES`, and without one it is closed. A session's POST must come from our own origin and carry the
session's CSRF token, in the field `csrf` of a form or in the header X-CSRF-Token. A program whose token holds carries
no cookie, so nothing of that holds for it, but where everybody may ask: there it is looked at as anybody.
"""

import asyncio
import hmac
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import NamedTuple, Protocol
from urllib.parse import parse_qs, quote, urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dicom_node.core.access import NOBODY, Need, Visitor
from dicom_node.core.errors import IndexUnavailable
from dicom_node.web.alerts import Alerts, Lack, Refused, needed
from dicom_node.web.doorkeeper import Doorkeeper
from dicom_node.web.form_body import FormTooLarge, given_again, whole_form
from dicom_node.web.needs import CLOSED, SAFE_METHODS, SECURITY_HEADERS, Rule, rule_of, rules_with
from dicom_node.web.threads import Threads

#: Bytes of a form, and how long it may take to come.
LONGEST_FORM_BYTES = 64 * 1024
FORM_SECONDS = 10.0

#: That look who asks.
_THREADS = 8

#: A page says by it that it asks by itself.
RENEWAL, RENEWAL_PARAMETER = "x-renewal", "renewal"

_SECURITY_HEADERS = [(name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]

_FORM = "application/x-www-form-urlencoded"

#: Makes a page that says why there is no other: status, words, and who asked.
Words = Callable[[int, str, Visitor], str]


#: What answers a request, in a thread.
Answer = Callable[[Request], Response]


class Short(Protocol):
    """A way to answers that only read; in the thread of each it is also looked who asks."""

    @property
    def is_full(self) -> bool:
        """Whether what comes now has to wait for another's end."""

    def find(self, scope: Scope) -> Answer | None:
        """What answers the request; None: the application does."""

    async def give(self, answer: Answer, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer it."""


class _Refusal(NamedTuple):
    """How a request is refused."""

    response: Response
    #: What the audit trail says that it lacked; None: nothing is told.
    lack: Lack | None = None


def is_from_our_page(headers: Headers) -> bool:
    """Whether a form of this very origin was sent: another site's must not be able to ask in a visitor's name.

    Browsers say so in Sec-Fetch-Site over TLS and on this machine, else in Origin; no site can forge either.
    """
    if (site := headers.get("sec-fetch-site")) is not None:
        return site == "same-origin"
    try:
        return urlsplit(headers.get("origin", "")).netloc == headers.get("host", "") != ""
    except ValueError:
        return False


class Gate:
    """ASGI middleware around the whole application."""

    def __init__(
        self,
        application: ASGIApp,
        *,
        doorkeeper: Doorkeeper,
        words: Words,
        short: Short | None = None,
        alerts: Alerts | None = None,
    ) -> None:
        self._application, self._short = application, short
        self._doorkeeper, self._alerts = doorkeeper, alerts
        self._words = words
        self._rules: Sequence[Rule] = rules_with(doorkeeper.settings.metrics)
        self._threads = Threads(_THREADS, "gate")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or answer it."""
        if scope["type"] != "http":
            # No websockets are served; a lifespan has no visitor.
            if scope["type"] == "lifespan":
                await self._application(scope, receive, send)
            return
        send = _with_headers(send)
        headers, rule = Headers(scope=scope), rule_of(str(scope["path"]), self._rules)
        is_blind = (rule is not None and rule.is_blind) or ("cookie" not in headers and "authorization" not in headers)
        # Where others wait already, who has no business here is refused before he waits with them.
        answer = None if self._short is None or is_blind or self._short.is_full else self._short.find(scope)
        if self._short is not None and answer is not None and scope["method"] in SAFE_METHODS:
            await self._short.give(partial(self._answer, answer, rule, headers), scope, receive, send)
            return
        seen = _nobody(scope) if is_blind else await self._visitor(scope, headers, rule)
        visitor, need, refusal = self._looked_at(rule, scope, headers, seen)
        is_program = bool(visitor.scopes) and not need.open
        if refusal is None and scope["method"] not in SAFE_METHODS and not is_program:
            refusal, receive = await self._look_at_form(headers, receive, visitor, need)
            if refusal is None and not need.open:
                # Whoever let the form come slowly may have been shut out meanwhile.
                seen = await self._visitor(scope, headers, rule)
                visitor, need, refusal = self._looked_at(rule, scope, headers, seen)
        if refusal is not None:
            if (alert := self._alert(refusal, rule, need, scope, visitor)) is not None:
                await self._threads.run(alert)
            await refusal.response(scope, receive, send)
            return
        scope.setdefault("state", {})["visitor"] = visitor
        await self._application(scope, receive, send)

    def _answer(self, answer: Answer, rule: Rule | None, headers: Headers, request: Request) -> Response:
        """In the thread that answers: it is looked who asks, and whether he may, before anything else is done there."""
        scope = request.scope
        visitor, need, refusal = self._looked_at(rule, scope, headers, self._seen(scope, headers, rule))
        if refusal is not None:
            if (alert := self._alert(refusal, rule, need, scope, visitor)) is not None:
                alert()
            return refusal.response
        scope.setdefault("state", {})["visitor"] = visitor
        return answer(request)

    async def _visitor(self, scope: Scope, headers: Headers, rule: Rule | None) -> Visitor | None:
        # In a thread: the database may let it wait. Not in one of those that pages may all hold.
        return await self._threads.run(self._seen, scope, headers, rule)

    def _seen(self, scope: Scope, headers: Headers, rule: Rule | None) -> Visitor | None:
        """Who asks; None where the index does not answer."""
        # A page without scripts cannot send a header: its own refresh says so in the address.
        query = scope["query_string"].decode("latin-1")
        renews = RENEWAL in headers or (RENEWAL_PARAMETER in query and parse_qs(query).get(RENEWAL_PARAMETER) == ["1"])
        used = not (rule is not None and rule.is_automatic) and not renews
        try:
            return self._doorkeeper.visitor(headers, _address_of(scope), used)
        except IndexUnavailable:
            return None

    def _looked_at(
        self, rule: Rule | None, scope: Scope, headers: Headers, seen: Visitor | None
    ) -> tuple[Visitor, Need, _Refusal | None]:
        """Who asks, what the request needs, and how it is refused, if it is."""
        need = CLOSED if rule is None else rule.need(scope["method"])
        if seen is None:
            words = "The index does not answer; see `dicom-node doctor`."
            return NOBODY, need, _Refusal(self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, words, NOBODY))
        return seen, need, None if seen.meets(need) else self._refusal(rule, need, scope, headers, seen)

    def _refusal(self, rule: Rule | None, need: Need, scope: Scope, headers: Headers, visitor: Visitor) -> _Refusal:
        if not visitor.known:
            return self._not_known(rule, need, scope, headers, visitor)
        if rule is None:
            words = "There is no such page. The worklist has the studies."
            return _Refusal(self._refuse(HTTPStatus.NOT_FOUND, words, visitor))
        if need == CLOSED:
            return _Refusal(self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, "This page can only be read.", visitor))
        words = f"This needs {needed(need)}; ask whoever runs this node."
        lack = Lack.SCOPE if visitor.role is None else Lack.ROLE
        return _Refusal(self._refuse(HTTPStatus.FORBIDDEN, words, visitor), lack)

    def _not_known(self, rule: Rule | None, need: Need, scope: Scope, headers: Headers, visitor: Visitor) -> _Refusal:
        is_page, only_asks = rule is None or rule.is_page, scope["method"] in SAFE_METHODS
        with_token = "authorization" in headers
        if is_page and only_asks and not with_token:
            asked = str(scope["path"]) + (
                f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else ""
            )
            return _Refusal(RedirectResponse(f"/login?next={quote(asked, safe='')}", HTTPStatus.SEE_OTHER))
        words = "Log in first, or send a token that holds: Authorization: Bearer TOKEN."
        refused = self._refuse(HTTPStatus.UNAUTHORIZED, words, visitor)
        refused.headers["WWW-Authenticate"] = 'Bearer realm="dicom-node"'
        lack = Lack.TOKEN if with_token else None if only_asks else Lack.LOGIN
        # Who tries addresses that are none is noise.
        return _Refusal(refused, None if need == CLOSED else lack)

    def _alert(
        self, refusal: _Refusal, rule: Rule | None, need: Need, scope: Scope, visitor: Visitor
    ) -> Callable[[], None] | None:
        """What writes the refusal down, where it is to be."""
        if self._alerts is None or refusal.lack is None or rule is None:
            return None
        method, path = scope["method"], str(scope["path"])
        return self._alerts.counted(
            Refused(lack=refusal.lack, need=need, method=method, path=path, form=rule.path, visitor=visitor)
        )

    async def _look_at_form(
        self, headers: Headers, receive: Receive, visitor: Visitor, need: Need
    ) -> tuple[_Refusal | None, Receive]:
        """Whether a browser's POST is of our own page; a form is read here, whole, in time, and not too large."""
        if not is_from_our_page(headers):
            words = "This can only be asked for by the button of the node's own page."
            return _Refusal(self._refuse(HTTPStatus.FORBIDDEN, words, visitor), Lack.FORM), receive
        token, given = headers.get("x-csrf-token", ""), b""
        # Whole objects come to where programs store, and nowhere else.
        is_form = headers.get("content-type", "").partition(";")[0].strip().lower() == _FORM
        if is_form or not token or not need.scope:
            try:
                given = await asyncio.wait_for(whole_form(receive, LONGEST_FORM_BYTES), FORM_SECONDS)
            except TimeoutError:
                late = self._refuse(HTTPStatus.REQUEST_TIMEOUT, "The form took too long to come.", visitor)
                return _Refusal(late), receive
            except FormTooLarge:
                large = self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The form is too large.", visitor)
                return _Refusal(large), receive
            token = token or "".join(parse_qs(given.decode("utf-8", "replace")).get("csrf", []))
            receive = given_again(given, receive)
        if visitor.known and not need.open and not hmac.compare_digest(token.encode(), visitor.csrf.encode()):
            words = "The form is not of this session: go back, load the page again, and send it once more."
            return _Refusal(self._refuse(HTTPStatus.FORBIDDEN, words, visitor), Lack.FORM), receive
        return None, receive

    def _refuse(self, status: HTTPStatus, words: str, visitor: Visitor) -> Response:
        return HTMLResponse(self._words(status, words, visitor), status)


def _with_headers(send: Send) -> Send:
    """Every answer has the security headers that it does not set itself."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            there = {name.lower() for name, _ in headers}
            message["headers"] = headers + [pair for pair in _SECURITY_HEADERS if pair[0] not in there]
        await send(message)

    return sending


def _address_of(scope: Scope) -> str:
    return scope["client"][0] if scope.get("client") else ""


def _nobody(scope: Scope) -> Visitor:
    return replace(NOBODY, address=_address_of(scope))


def visitor_of(scope: Scope) -> Visitor:
    """Who the gate let in with this request."""
    visitor = scope.get("state", {}).get("visitor", NOBODY)
    return visitor if isinstance(visitor, Visitor) else NOBODY
