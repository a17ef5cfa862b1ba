"""People and programs that are let in by an index's own methods, for tests of what they then see."""

import http.client
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from urllib.parse import urlencode

from dicom_node.archive.index import Index
from dicom_node.core.access import Role
from dicom_node.web.doorkeeper import csrf_of
from tests.populated_index import NOW


@dataclass(frozen=True)
class Answer:
    """What the server answered."""

    status: int
    headers: Message
    text: str


def session(index: Index, role: Role = Role.ADMIN, *, name: str = "", at: float = NOW) -> str:
    """The secret of a session of a user of this role, who is made where there is none."""
    name = name or f"an-{role}"
    if index.users.find(name) is None:
        index.users.add(name, role=role, password="", at=at)
    return index.sessions.begin(name, at=at)


@dataclass(frozen=True)
class Person:
    """A browser with a session, or without; paths go over the wire as they are written here."""

    port: int
    secret: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    def ask(
        self, method: str, path: str, body: bytes | str | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        cookie = {"Cookie": f"session={self.secret}"} if self.secret else {}
        try:
            connection.request(method, path, body=body, headers={**cookie, **self.headers, **(headers or {})})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read().decode("utf-8", "replace"))
        finally:
            connection.close()

    def get(self, path: str, method: str = "GET") -> Answer:
        """Ask for a page."""
        return self.ask(method, path)

    def post(self, path: str, fields: Mapping[str, str] | None = None, **headers: str) -> Answer:
        """Send a form as a browser does from our own page, unless other headers are given."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = sent or {"Origin": f"http://127.0.0.1:{self.port}"}
        csrf = {"csrf": csrf_of(self.secret)} if self.secret else {}
        body = urlencode({**csrf, **(fields or {})})
        return self.ask("POST", path, body, {"Content-Type": "application/x-www-form-urlencoded", **sent})
