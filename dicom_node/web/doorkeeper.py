"""The doorkeeper: who sends a request, by the cookie of his session or by a program's token."""

import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers
from starlette.responses import Response

from dicom_node.archive.index import Index
from dicom_node.core.access import NOBODY, Visitor
from dicom_node.settings import AccessSettings

_BEARER = re.compile(r"[Bb]earer +([A-Za-z0-9._~+/-]+=*)")


def csrf_of(session: str) -> str:
    """What forms of a session carry: follows from its secret, and tells nothing of it."""
    return hmac.new(session.encode(), b"csrf", hashlib.sha256).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Doorkeeper:
    """Knows people by their sessions and programs by their tokens."""

    index: Index
    settings: AccessSettings
    clock: Callable[[], float]

    @property
    def cookie(self) -> str:
        """The cookie's name; the prefix has browsers refuse it without TLS, or from another host of the domain."""
        return "__Host-session" if self.settings.secure_cookies else "session"

    def session_of(self, headers: Headers) -> str:
        """The secret in the request's cookie, or nothing."""
        try:
            found = SimpleCookie(headers.get("cookie", "")).get(self.cookie)
        except CookieError:
            return ""
        return "" if found is None else found.value

    def visitor(self, headers: Headers, address: str, used: bool = True) -> Visitor:
        """Who sends these headers; a token counts before a cookie. `used`: by a person, not by a page by itself."""
        if (given := headers.get("authorization")) is not None:
            token = _BEARER.fullmatch(given)
            row = self.index.tokens.find(token[1], at=self.clock()) if token else None
            return (
                Visitor(name=row.name, scopes=row.scopes, address=address) if row else replace(NOBODY, address=address)
            )
        return self.person(self.session_of(headers), address, used=used)

    def person(self, secret: str, address: str = "", *, used: bool = True) -> Visitor:
        """Whose session this is, if it still lasts."""
        session = None
        if secret:
            hours, minutes = self.settings.session_hours, self.settings.idle_minutes
            limits = {"idle_seconds": minutes * 60, "longest_seconds": hours * 3600}
            session = self.index.sessions.find(secret, at=self.clock(), used=used, **limits)
        if session is None:
            return replace(NOBODY, address=address)
        return Visitor(name=session.user, role=session.role, address=address, csrf=csrf_of(secret))

    def keep(self, response: Response, secret: str) -> None:
        """Let the browser keep a session's secret: no script sees it, and no other site's form brings it along."""
        response.set_cookie(
            self.cookie, secret, path="/", httponly=True, samesite="lax", secure=self.settings.secure_cookies
        )

    def drop(self, response: Response) -> None:
        """Let the browser forget it."""
        response.delete_cookie(
            self.cookie, path="/", httponly=True, samesite="lax", secure=self.settings.secure_cookies
        )
