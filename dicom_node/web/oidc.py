"""OpenID Connect: people log in at an identity provider, by the authorization code flow with PKCE.

OpenID Connect Core 1.0 Section 3.1, RFC 7636. What is kept between question and answer (state, nonce, verifier) lies in
a cookie of the browser that asked, so that an answer which another browser was made to bring is worth nothing; it is
sealed with the node's key, so that it holds no question that the node did not ask, or asked long ago.
"""

import asyncio
import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from dicom_node.core.access import USER_NAME
from dicom_node.core.errors import NodeError, SettingsError
from dicom_node.settings import AccessSettings

_TIMEOUT_SECONDS = 10.0
#: Signatures that we believe: those by a public key, never "none" and none by a shared secret.
_ALGORITHMS = ["RS256", "ES256", "PS256", "EdDSA"]
_LEEWAY_SECONDS = 60
#: How long the way to the identity provider and back may take.
ANSWER_SECONDS = 600


class ProviderError(NodeError):
    """The identity provider did not say who it is."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """Where the browser is sent, and what it keeps until the answer."""

    address: str
    kept: str


class IdentityProvider:
    """One provider; its addresses and keys are asked for when they are first needed."""

    def __init__(self, settings: AccessSettings, *, key: bytes, clock: Callable[[], float]) -> None:
        """`key` seals what a browser keeps; where there is none, one of this process alone."""
        try:
            import httpx
            import joserfc  # noqa: F401 - looked for here, used where an answer is checked
        except ImportError as error:
            mend = 'install dicom-node with its extra "oidc", or remove oidc_issuer of [access]'
            raise SettingsError(f"this installation cannot ask an identity provider; {mend}") from error
        self._settings, self._clock = settings, clock
        self._key = key or secrets.token_bytes(32)
        self._client = httpx.AsyncClient
        self._known: Mapping[str, Any] = {}

    async def question(self, own_address: str) -> Question:
        """Where to send the browser; ProviderError where the provider does not answer."""
        known = await self._discover()
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "response_type": "code",
            "client_id": self._settings.oidc_client_id,
            "redirect_uri": own_address,
            "scope": "openid profile email",
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        joint = "&" if "?" in known["authorization_endpoint"] else "?"
        return Question(
            address=f"{known['authorization_endpoint']}{joint}{urlencode(asked)}",
            kept=self._sealed(f"{state}.{nonce}.{verifier}.{int(self._clock())}"),
        )

    def _sealed(self, text: str) -> str:
        return f"{text}.{hmac.new(self._key, b'identity provider ' + text.encode(), hashlib.sha256).hexdigest()}"

    def _opened(self, kept: str) -> tuple[str, str, str]:
        """State, nonce and verifier of a question that we asked lately; else nothing."""
        text = kept.rpartition(".")[0]
        if text.count(".") != 3 or not hmac.compare_digest(self._sealed(text).encode(), kept.encode()):
            return "", "", ""
        state, nonce, verifier, at = text.split(".")
        return (state, nonce, verifier) if self._clock() - int(at) <= ANSWER_SECONDS else ("", "", "")

    async def user(self, answered: Mapping[str, str], kept: str, own_address: str) -> str:
        """Who came back with this answer; ProviderError where it is none that we asked for, or says nobody."""
        state, nonce, verifier = self._opened(kept)
        if not state or not hmac.compare_digest(answered.get("state", "").encode(), state.encode()):
            raise ProviderError("This answer belongs to no question of ours. Begin again.")
        if "code" not in answered:
            raise ProviderError("The identity provider let nobody in.")
        known = await self._discover()
        given = {
            "grant_type": "authorization_code",
            "code": answered["code"],
            "redirect_uri": own_address,
            "client_id": self._settings.oidc_client_id,
            "code_verifier": verifier,
        }
        told = await self._ask(known["token_endpoint"], given)
        claims = self._checked(str(told.get("id_token", "")), await self._ask(known["jwks_uri"]), nonce)
        name = claims.get(self._settings.oidc_claim)
        if self._settings.oidc_claim == "email" and claims.get("email_verified") is not True:
            raise ProviderError("The identity provider has not verified this address.")
        if not isinstance(name, str) or not USER_NAME.fullmatch(name):
            raise ProviderError("The identity provider names nobody who could be a user here.")
        return name

    def _checked(self, token: str, keys: Any, nonce: str) -> Mapping[str, Any]:
        """The claims of an ID token that is of this provider, for us, of now, and the answer to our question."""
        from joserfc import jwt
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet

        try:
            decoded = jwt.decode(token, KeySet.import_key_set(keys), algorithms=_ALGORITHMS)
            registry = jwt.JWTClaimsRegistry(
                now=int(time.time()),
                leeway=_LEEWAY_SECONDS,
                iss={"essential": True, "value": self._settings.oidc_issuer},
                aud={"essential": True, "value": self._settings.oidc_client_id},
                exp={"essential": True},
                nonce={"essential": True, "value": nonce},
            )
            registry.validate(decoded.claims)
            self._check_party(decoded.claims)
        except (JoseError, ValueError, KeyError, TypeError) as error:
            raise ProviderError("The identity provider's answer is not to be believed.") from error
        return decoded.claims

    def _check_party(self, claims: Mapping[str, Any]) -> None:
        """A token for several parties must have been given to us (OpenID Connect Core 1.0 Section 3.1.3.7)."""
        audience = claims.get("aud")
        is_for_many = isinstance(audience, list) and len(audience) > 1
        if (is_for_many or "azp" in claims) and claims.get("azp") != self._settings.oidc_client_id:
            raise ValueError("the token was given to another party")

    async def _discover(self) -> Mapping[str, Any]:
        if not self._known:
            issuer = self._settings.oidc_issuer
            known = await self._ask(issuer.rstrip("/") + "/.well-known/openid-configuration")
            wanted = ("authorization_endpoint", "token_endpoint", "jwks_uri")
            # OpenID Connect Discovery 1.0 Section 4.3.
            if known.get("issuer") != issuer or not all(isinstance(known.get(name), str) for name in wanted):
                raise ProviderError("The identity provider describes itself as another; see oidc_issuer of [access].")
            self._known = known
        return self._known

    async def _ask(self, address: str, form: Mapping[str, str] | None = None) -> Mapping[str, Any]:
        import httpx

        secret = self._settings.oidc_client_secret
        login = (self._settings.oidc_client_id, secret) if form and secret else None
        try:
            async with self._client(timeout=_TIMEOUT_SECONDS) as client, asyncio.timeout(2 * _TIMEOUT_SECONDS):
                answer = await client.request(
                    "POST" if form else "GET", address, data=dict(form or {}) or None, auth=login
                )
                answer.raise_for_status()
                told = answer.json()
        except (httpx.HTTPError, ValueError, TimeoutError) as error:
            raise ProviderError("The identity provider does not answer; try again, or log in by password.") from error
        if not isinstance(told, dict):
            raise ProviderError("The identity provider's answer cannot be read.")
        return told
