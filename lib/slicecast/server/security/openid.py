"""Logins by an OpenID provider (Keycloak and others): its tokens, and a browser's way to its page and back.

MONAI Label's own check refuses every token of such a provider. Here signature (public-key algorithms only), issuer,
audience and times are checked; the keys come from the provider, and are asked for anew when a token names an unknown
one, but not more often than every half minute. A browser goes by the code flow with PKCE (OpenID Connect Core 1.0, 3.1;
RFC 7636).
"""

import base64
import hashlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

import httpx
import jwt
from cachetools import TTLCache
from jwt import PyJWK

from slicecast.errors import ResourceError
from slicecast.server.security.users import Identity, Role
from slicecast.server.settings import AuthSettings

logger = logging.getLogger(__name__)

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA")
"""Never `none`, and never HS*, with which the public key would be the secret."""
LEEWAY_S = 10
KEYS_PAUSE_S = 30.0
TIMEOUT_S = 10.0
ATTEMPT_S = 600.0  # A person has so long at the provider's page
MAX_ATTEMPTS = 10_000
NAMES = ("preferred_username", "email", "sub")  # The first of these that a token has is the user's name


@dataclass(frozen=True, slots=True)
class Attempt:
    """A browser that was sent to the provider, and what it must come back with."""

    state: str  # names the attempt; the browser also holds it in a cookie
    nonce: str  # must be in the token
    verifier: str  # of PKCE (RFC 7636): only who began can change the code for a token
    back: str  # where the browser comes back to
    wanted: str  # where the person wanted to go


class Provider:
    """An OpenID provider, asked for the first time when the first token comes.

    Args:
        settings: with an issuer and an audience.
        fetch: gets JSON from an address.
    """

    def __init__(self, settings: AuthSettings, *, fetch: Callable[[str], Any] | None = None) -> None:
        self._settings = settings
        self._fetch = fetch or _fetch
        self._guard = threading.Lock()
        self._described: Mapping[str, Any] | None = None
        self._keys: dict[str | None, PyJWK] = {}
        self._asked = float("-inf")
        self._attempts: TTLCache[str, Attempt] = TTLCache(MAX_ATTEMPTS, ATTEMPT_S)

    def begin(self, *, back: str, wanted: str) -> tuple[str, str]:
        """Return the provider's address to send a browser to, and the state it must come back with.

        Raises:
            ResourceError: the provider cannot be reached.
        """
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        attempt = Attempt(state, nonce, verifier, back, wanted)
        hashed = hashlib.sha256(attempt.verifier.encode()).digest()
        asked = {
            "response_type": "code",
            "client_id": self._client,
            "redirect_uri": back,
            "scope": "openid profile",
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": base64.urlsafe_b64encode(hashed).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        address = self._endpoint("authorization_endpoint")
        with self._guard:
            self._attempts[attempt.state] = attempt
        return f"{address}?{urlencode(asked)}", attempt.state

    def finish(self, state: str, code: str) -> tuple[Identity, str] | None:
        """Change the code that a browser came back with; return who logs in and where they wanted to go.

        None when nobody of that state was sent, or the provider refuses, or gives no role here.

        Raises:
            ResourceError: the provider cannot be reached.
        """
        with self._guard:
            attempt = self._attempts.pop(state, None)
        if attempt is None:
            return None
        given = {"grant_type": "authorization_code", "code": code, "redirect_uri": attempt.back}
        tokens = self._tokens({**given, "code_verifier": attempt.verifier})
        proof = str(tokens.get("id_token", ""))
        claims = self._claims(proof, audience=self._client)
        if claims is None or claims.get("nonce") != attempt.nonce:
            return None
        # Keycloak names roles in the access token, others in the ID token
        identity = self._as_identity(claims) or self.identity(str(tokens.get("access_token", "")))
        return None if identity is None else (replace(identity, proof=proof), attempt.wanted)

    def end(self, identity: Identity, *, back: str) -> str | None:
        """Return the address where a browser ends that login at the provider too (RP-initiated logout), if any."""
        address = self._description().get("end_session_endpoint")
        asked = {"id_token_hint": identity.proof, "post_logout_redirect_uri": back, "state": secrets.token_urlsafe(8)}
        return f"{address}?{urlencode(asked)}" if address and identity.proof else None

    def identity(self, token: str) -> Identity | None:
        """Return whose token it is; None when it is not valid or gives no role here."""
        claims = self._claims(token, audience=self._settings.oidc_audience)
        return None if claims is None else self._as_identity(claims)

    def exchange(self, name: str, password: str) -> str | None:
        """Ask the provider for a token in return for a password; None when it refuses.

        Raises:
            ResourceError: it cannot be reached.
        """
        given = {"grant_type": "password", "username": name, "password": password}
        return self._tokens(given).get("access_token")

    @property
    def _client(self) -> str:
        return self._settings.oidc_client_id or self._settings.oidc_audience

    def _tokens(self, given: Mapping[str, str]) -> dict[str, str]:
        """Ask for tokens; empty when the provider refuses."""
        secret = self._settings.oidc_client_secret
        data = {**given, "client_id": self._client, **({"client_secret": secret} if secret else {})}
        try:
            answer = httpx.post(self._endpoint("token_endpoint"), data=data, timeout=TIMEOUT_S)
            return dict(answer.json()) if answer.is_success else {}
        except (httpx.HTTPError, ValueError) as error:
            raise ResourceError("The OpenID provider does not answer. Try again, or tell its administrator.") from error

    def _endpoint(self, name: str) -> str:
        try:
            return str(self._description()[name])
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise ResourceError("The OpenID provider does not answer. Try again, or tell its administrator.") from error

    def _claims(self, token: str, *, audience: str) -> dict[str, Any] | None:
        """Return what a valid token says; None for another."""
        try:
            key = self._key(jwt.get_unverified_header(token).get("kid"))
            if key is None:
                return None
            return jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                audience=audience,
                issuer=self._settings.oidc_issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iat", "iss", "aud"]},
            )
        except (jwt.InvalidTokenError, jwt.PyJWKError) as error:
            logger.info("A token was refused: %s", type(error).__name__)
            return None

    def _as_identity(self, claims: Mapping[str, Any]) -> Identity | None:
        role = self._role(claims)
        name = next((str(claims[key]) for key in NAMES if claims.get(key)), None)
        return Identity(name[:200], role, float(claims["exp"])) if role and name else None

    def _role(self, claims: Mapping[str, Any]) -> Role | None:
        value: Any = claims
        for word in self._settings.oidc_roles.split("."):
            value = value.get(word) if isinstance(value, Mapping) else None
        names = {value} if isinstance(value, str) else {n for n in value or () if isinstance(n, str)}
        return max((role for role in Role if getattr(self._settings, f"oidc_{role.name}") in names), default=None)

    def _key(self, kid: str | None) -> PyJWK | None:
        with self._guard:
            if kid not in self._keys and time.monotonic() - self._asked > KEYS_PAUSE_S:
                self._asked = time.monotonic()
                self._keys = self._fetched_keys()
            only = next(iter(self._keys.values())) if kid is None and len(self._keys) == 1 else None
            return self._keys.get(kid, only)  # with one key its name may be left out (OpenID Connect Core, 10.1)

    def _fetched_keys(self) -> dict[str | None, PyJWK]:
        try:
            content = self._fetch(str(self._description()["jwks_uri"]))
            keys = jwt.PyJWKSet.from_dict(content).keys
            return {key.key_id: key for key in keys if key.algorithm_name in ALGORITHMS}
        except (httpx.HTTPError, ValueError, KeyError, TypeError, jwt.PyJWTError) as error:
            raise ResourceError("The OpenID provider's keys cannot be read. See whether it runs.") from error

    def _description(self) -> Mapping[str, Any]:
        if self._described is None:
            described = self._fetch(f"{self._settings.oidc_issuer.rstrip('/')}/.well-known/openid-configuration")
            if described.get("issuer") != self._settings.oidc_issuer:
                raise ResourceError(f"The provider calls itself '{described.get('issuer')}'; set oidc_issuer to that.")
            self._described = described
        return self._described


def _fetch(url: str) -> Any:
    answer = httpx.get(url, timeout=TIMEOUT_S, follow_redirects=False)
    answer.raise_for_status()
    return answer.json()
