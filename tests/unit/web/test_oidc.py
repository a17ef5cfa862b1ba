"""Logging in by OpenID Connect, at a small provider that really signs, beside everything that must not be believed."""

import asyncio
import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet, OctKey, RSAKey

from dicom_node.archive.index import Index
from dicom_node.core.access import Role
from dicom_node.settings import AccessSettings, Settings
from dicom_node.web.application import build_application
from dicom_node.web.oidc import ANSWER_SECONDS, IdentityProvider
from dicom_node.web.server import WebServer
from tests.populated_index import NOW
from tests.visitors import Answer, Person

CLIENT, SECRET = "dicom-node", "client-secret"


class Provider:
    """Knows one person, and remembers what it was asked for each code."""

    def __init__(self) -> None:
        self.key = RSAKey.generate_key(2048, {"kid": "1"}, private=True)
        self.asked: dict[str, dict[str, str]] = {}
        #: What a test has it say otherwise.
        self.claims: dict[str, Any] = {}
        self.header: dict[str, Any] = {"alg": "RS256", "kid": "1"}
        self.signing: Any = self.key
        self.described: dict[str, Any] = {}
        handler = type("Handler", (_Handler,), {"provider": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.issuer = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def code_for(self, address: str) -> tuple[str, str]:
        """Code and state that the browser brings back, after it was sent to this address."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        code = f"code-{len(self.asked)}"
        self.asked[code] = asked
        return code, asked["state"]

    def token(self, given: dict[str, str], login: str) -> dict[str, Any] | None:
        asked = self.asked.pop(given.get("code", ""), None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(given.get("code_verifier", "").encode()).digest())
        expected = "Basic " + base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        if asked is None or login != expected or challenge.rstrip(b"=").decode() != asked["code_challenge"]:
            return None
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": CLIENT, "sub": "1", "exp": now + 60, "iat": now, "nonce": asked["nonce"]}
        claims |= {"preferred_username": "ann", **self.claims}
        return {"id_token": jwt.encode(self.header, claims, self.signing, algorithms=["RS256", "HS256"])}


class _Handler(BaseHTTPRequestHandler):
    provider: Provider

    def do_GET(self) -> None:
        provider = self.provider
        described = {
            "issuer": provider.issuer,
            "authorization_endpoint": f"{provider.issuer}/authorize",
            "token_endpoint": f"{provider.issuer}/token",
            "jwks_uri": f"{provider.issuer}/keys",
            **provider.described,
        }
        keys = KeySet([provider.key]).as_dict(private=False)
        self._answer({"/.well-known/openid-configuration": described, "/keys": keys}.get(self.path))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        given = {name: values[0] for name, values in parse_qs(body).items()}
        self._answer(self.provider.token(given, self.headers.get("Authorization", "")))

    def _answer(self, told: Any) -> None:
        self.send_response(400 if told is None else 200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(told or {"error": "invalid_grant"}).encode())

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture
def provider() -> Iterator[Provider]:
    provider = Provider()
    yield provider
    provider.server.shutdown()
    provider.server.server_close()


@pytest.fixture
def browser(tmp_path: Path, provider: Provider) -> Iterator[Person]:
    """Nobody yet, at a node that knows the user ann."""
    index = Index.open(f"sqlite:///{tmp_path / 'index.sqlite'}")
    index.users.add("ann", role=Role.OPERATOR, password="", at=NOW)
    access = AccessSettings(oidc_issuer=provider.issuer, oidc_client_id=CLIENT, oidc_client_secret=SECRET)
    server = WebServer(
        build_application(index, dict, dict, lambda: NOW, settings=Settings(access=access)), "127.0.0.1", 0
    )
    server.start()
    yield Person(server.port)
    server.stop()
    index.close()


def asked(browser: Person) -> tuple[str, str]:
    """Where the login leads, and the cookie that remembers the question."""
    answer = browser.get("/login/provider")
    assert answer.status == 303
    return answer.headers["Location"], SimpleCookie(answer.headers["Set-Cookie"])["provider"].value


def back(browser: Person, kept: str, **given: str) -> Answer:
    return browser.ask("GET", f"/login/answer?{urlencode(given)}", headers={"Cookie": f"provider={kept}"})


def whole_way(browser: Person, provider: Provider) -> Answer:
    address, kept = asked(browser)
    code, state = provider.code_for(address)
    return back(browser, kept, code=code, state=state)


def test_a_user_whom_the_provider_names_is_let_in(browser: Person, provider: Provider) -> None:
    assert "identity provider" in browser.get("/login").text
    answer = whole_way(browser, provider)
    assert (answer.status, answer.headers["Location"]) == (303, "/")
    found = re.search(r"session=([^;]+)", " ".join(answer.headers.get_all("Set-Cookie", [])))
    assert found is not None
    page = Person(browser.port, found[1]).get("/")
    assert (page.status, "Log out ann" in page.text) == (200, True)


def test_who_is_known_there_and_not_here_is_told_so(browser: Person, provider: Provider) -> None:
    provider.claims = {"preferred_username": "bob"}
    answer = whole_way(browser, provider)
    assert (answer.status, "are no user of this node" in answer.text) == (403, True)


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "http://127.0.0.1:1"},
        {"aud": "another-client"},
        {"aud": [CLIENT, "another-client"]},
        {"azp": "another-client"},
        {"aud": [CLIENT, "another-client"], "azp": "another-client"},
        {"exp": 1_600_000_000},
        {"nonce": "of another question"},
        {"preferred_username": "ann <b>"},
        {"preferred_username": None},
    ],
    ids=str,
)
def test_a_token_of_another_time_place_or_question_is_not_believed(
    browser: Person, provider: Provider, claims: dict[str, Any]
) -> None:
    provider.claims = claims
    assert whole_way(browser, provider).status == 401


def test_a_signature_by_another_key_is_not_believed(browser: Person, provider: Provider) -> None:
    provider.signing = RSAKey.generate_key(2048, {"kid": "1"}, private=True)
    assert whole_way(browser, provider).status == 401


def test_a_signature_by_a_shared_secret_is_not_believed(browser: Person, provider: Provider) -> None:
    # The classic: the public key taken as the secret of an HMAC.
    provider.signing = OctKey.import_key(provider.key.as_pem(private=False).replace(b"-----", b""))
    provider.header = {"alg": "HS256", "kid": "1"}
    assert whole_way(browser, provider).status == 401


def test_an_answer_of_another_browsers_question_is_not_taken(browser: Person, provider: Provider) -> None:
    _, victims = asked(browser)
    address, _ = asked(browser)
    code, state = provider.code_for(address)
    assert back(browser, victims, code=code, state=state).status == 401
    assert back(browser, "", code=code, state=state).status == 401
    assert back(browser, "..", code=code, state="").status == 401


def test_a_token_for_several_that_was_given_to_us_lets_in(browser: Person, provider: Provider) -> None:
    provider.claims = {"aud": [CLIENT, "another-client"], "azp": CLIENT}
    assert whole_way(browser, provider).status == 303


def test_a_question_that_the_node_did_not_ask_or_asked_long_ago_is_none(browser: Person, provider: Provider) -> None:
    address, kept = asked(browser)
    code, state = provider.code_for(address)
    parts = kept.split(".")
    older = ".".join([*parts[:3], str(int(NOW) - ANSWER_SECONDS - 1), parts[4]])
    for forged in ("state.nonce.verifier", "state.nonce.verifier.1.0", older, kept[:-1] + "x"):
        assert back(browser, forged, code=code, state=forged.split(".")[0]).status == 401
    assert back(browser, kept, code=code, state=state).status == 303


def test_a_sealed_question_is_over_in_time(provider: Provider) -> None:
    now = [NOW]
    access = AccessSettings(oidc_issuer=provider.issuer, oidc_client_id=CLIENT)
    asking = IdentityProvider(access, key=b"k", clock=lambda: now[0])
    kept = asyncio.run(asking.question("http://here/login/answer")).kept
    other = IdentityProvider(access, key=b"another", clock=lambda: now[0])
    assert asking._opened(kept)[0]
    assert other._opened(kept) == ("", "", "")
    now[0] += ANSWER_SECONDS + 1
    assert asking._opened(kept) == ("", "", "")


def test_every_answer_takes_the_question_away_and_wrong_ones_are_bounded(browser: Person) -> None:
    _, kept = asked(browser)
    statuses = []
    for _ in range(12):
        answer = back(browser, kept, code="x", state="x")
        statuses.append(answer.status)
        assert "Max-Age=0" in answer.headers["Set-Cookie"]
    assert statuses == [401] * 10 + [429] * 2


def test_a_code_is_good_once(browser: Person, provider: Provider) -> None:
    address, kept = asked(browser)
    code, state = provider.code_for(address)
    assert back(browser, kept, code=code, state=state).status == 303
    assert back(browser, kept, code=code, state=state).status == 401


def test_a_provider_that_describes_itself_as_another_is_not_asked(browser: Person, provider: Provider) -> None:
    provider.described = {"issuer": "https://evil.example"}
    assert browser.get("/login/provider").status == 502


def test_a_provider_that_is_away_is_said_to_be_and_passwords_still_work(browser: Person, provider: Provider) -> None:
    provider.server.shutdown()
    provider.server.server_close()
    answer = browser.get("/login/provider")
    assert (answer.status, "does not answer" in answer.text) == (502, True)
