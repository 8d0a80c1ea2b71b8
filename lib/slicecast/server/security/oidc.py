"""Tokens of an OpenID provider (Keycloak and others): MONAI Label's own check refuses every one of them.

Signature (public-key algorithms only), issuer, audience and times are all checked; the keys come from the provider,
and are asked for anew when a token names one that is not known, but not more often than every half minute.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import jwt
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
NAMES = ("preferred_username", "email", "sub")
"""The first of these that a token has is the user's name."""


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

    def identity(self, token: str) -> Identity | None:
        """Return whose token it is; None when it is not valid or gives no role here."""
        settings = self._settings
        try:
            key = self._key(jwt.get_unverified_header(token).get("kid"))
            if key is None:
                return None
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                audience=settings.oidc_audience,
                issuer=settings.oidc_issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iat", "iss", "aud"]},
            )
        except (jwt.InvalidTokenError, jwt.PyJWKError) as error:
            logger.info("A token was refused: %s", type(error).__name__)
            return None
        role = self._role(claims)
        name = next((str(claims[key]) for key in NAMES if claims.get(key)), None)
        return Identity(name[:200], role, float(claims["exp"])) if role and name else None

    def exchange(self, name: str, password: str) -> str | None:
        """Ask the provider for a token in return for a password; None when it refuses.

        Raises:
            ResourceError: it cannot be reached.
        """
        data = {
            "grant_type": "password",
            "client_id": self._settings.oidc_client_id or self._settings.oidc_audience,
            "username": name,
            "password": password,
        }
        try:
            answer = httpx.post(str(self._description()["token_endpoint"]), data=data, timeout=TIMEOUT_S)
            return str(answer.json()["access_token"]) if answer.is_success else None
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise ResourceError("The OpenID provider does not answer. Try again, or tell its administrator.") from error

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
            return self._keys.get(kid)

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
