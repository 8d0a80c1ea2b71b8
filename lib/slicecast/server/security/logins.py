"""Logging in: who is logged in, who has tried too often, and the routes.

The routes are MONAI Label's `/auth/` for 3D Slicer and programs, and a page with a cookie for OHIF and the campaign.
Logins are held in memory: a restart logs everybody out.

MONAI Label's own check refuses every token of an OpenID provider (Keycloak and others). Here signature (public-key
algorithms only), issuer, audience and times are checked; the keys come from the provider, and are asked for anew when a
token names an unknown one, but not more often than every half minute.
"""

import logging
import math
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import anyio
import httpx
import jwt
from cachetools import LRUCache, TLRUCache
from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jwt import PyJWK

from slicecast.errors import ResourceError
from slicecast.server.dependencies import AnyUser
from slicecast.server.errors import NotLoggedIn, TooManyLogins, problems
from slicecast.server.html import render
from slicecast.server.security.users import Account, Identity, Role, Users, digest
from slicecast.server.settings import AuthSettings

logger = logging.getLogger(__name__)

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA")
"""Never `none`, and never HS*, with which the public key would be the secret."""
LEEWAY_S = 10
KEYS_PAUSE_S = 30.0
TIMEOUT_S = 10.0
NAMES = ("preferred_username", "email", "sub")  # The first of these that a token has is the user's name


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


COOKIE = "slicecast_login"
WINDOW_S = 300.0  # Wrong logins are forgotten after this
MAX_LOGINS = 10_000
MAX_WATCHED = 10_000  # Names, each with an address, whose wrong logins are counted at a time


class Logins:
    """Logins by a random token, of which only the hash is held."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._guard = threading.Lock()
        self._held: TLRUCache[str, Identity] = TLRUCache(
            MAX_LOGINS, ttu=lambda token, identity, now: identity.expires, timer=clock
        )

    def open(self, identity: Identity) -> str:
        """Begin a login and return its token."""
        token = secrets.token_urlsafe(32)
        with self._guard:
            self._held[digest(token)] = identity
        return token

    def find(self, token: str) -> Identity | None:
        """Return whose login it is, or None."""
        with self._guard:
            return self._held.get(digest(token))

    def close(self, token: str) -> None:
        """End a login."""
        with self._guard:
            self._held.pop(digest(token), None)


class Throttle:
    """Counts wrong logins."""

    def __init__(self, limit: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._guard = threading.Lock()
        self._wrong: LRUCache[str, deque[float]] = LRUCache(MAX_WATCHED)

    def wait_s(self, *keys: str) -> float:
        """Return how long the slowest of these must wait; 0 for not at all."""
        now = self._clock()
        with self._guard:
            return max((self._wait(self._wrong.get(key), now) for key in keys), default=0.0)

    def failed(self, *keys: str) -> None:
        """Count a wrong login."""
        now = self._clock()
        with self._guard:
            for key in keys:
                self._wrong.setdefault(key, deque(maxlen=self._limit)).append(now)

    def succeeded(self, *keys: str) -> None:
        """Forget the wrong logins of these."""
        with self._guard:
            for key in keys:
                self._wrong.pop(key, None)

    def _wait(self, times: deque[float] | None, now: float) -> float:
        if times is None or len(times) < self._limit:
            return 0.0
        return max(times[0] + WINDOW_S - now, 0.0)


@dataclass(frozen=True, slots=True)
class Access:
    """Everything that decides about a request."""

    users: Users  # those of the users' file
    settings: AuthSettings  # of logins
    provider: Provider | None  # of OpenID tokens, or None
    closed: bool  # logins are needed. Decided at start, so that losing the users' file opens nothing.
    insecure: bool = False  # without logins, answer everybody all the same
    origins: Collection[str] = ()  # other sites whose pages may send requests
    logins: Logins = field(default_factory=Logins)  # those who are in
    throttle: Throttle = field(default_factory=lambda: Throttle(5))  # those who tried too often

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names under which a server without logins may be asked, besides localhost and addresses."""
        return (*self.settings.hosts, socket.gethostname().lower()) if self.insecure else self.settings.hosts

    @classmethod
    def of(cls, users: Users, auth: AuthSettings, *, insecure: bool, origins: Collection[str] = ()) -> "Access":
        """Set up what the settings say."""
        provider = Provider(auth) if auth.oidc_issuer else None
        closed = provider is not None or bool(users.all())
        return cls(users, auth, provider, closed, insecure, origins, throttle=Throttle(auth.failures))

    def identify(self, token: str) -> Identity | None:
        """Return whose token it is: a user's own, that of a login, or an OpenID provider's."""
        account = self.users.find(token)
        if account is not None:
            return of_account(account, hours=self.settings.hours)
        identity = self.logins.find(token)
        if identity is not None:
            return self._still(identity)
        return self.provider.identity(token) if self.provider and token.count(".") == 2 else None

    def log_in(self, name: str, password: str) -> Identity | None:
        """Return who logs in, or None; a user's password is their token."""
        account = self.users.check(name, password)
        if account is not None:
            return of_account(account, hours=self.settings.hours)
        token = self.provider.exchange(name, password) if self.provider else None
        return self.provider.identity(token) if self.provider and token else None

    def _still(self, identity: Identity) -> Identity | None:
        """Look whether a user is still in the file, and as what."""
        if not identity.account:
            return identity
        account = self.users.all().get(identity.name)
        return None if account is None else Identity(account.name, Role[account.role], identity.expires, True)


def of_account(account: Account, *, hours: int) -> Identity:
    """Return the identity of a user who has just shown their token."""
    return Identity(account.name, Role[account.role], time.time() + hours * 3600, True)


def sent_token(request: Request) -> str | None:
    """Return the token that came with a request: a bearer's, else the cookie's."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return request.cookies.get(COOKIE)


router = APIRouter(
    tags=["Auth"],
    responses=problems(
        {
            401: "The name, token or password is wrong, or missing",
            403: "The page that you came from may not do this",
            422: "The request cannot be used; the detail says why",
            429: "Too many wrong logins; wait as long as `Retry-After` says",
        }
    ),
)

Word = Annotated[str, Form(max_length=4096)]


def the_access(request: Request) -> Access:
    """Return the application's rules of access."""
    access: Access = request.app.state.access
    return access


AccessOf = Annotated[Access, Depends(the_access)]


@router.get("/auth/", summary="Say whether logins are needed")
def auth_enabled(access: AccessOf) -> dict[str, Any]:
    """Answer as MONAI Label does; Slicer asks for a name and password where `enabled` is true."""
    auth = access.settings
    return {"enabled": access.closed, "client_id": auth.oidc_client_id, "realm": auth.oidc_issuer}


@router.post("/auth/token", summary="Log in and get a bearer token")
async def auth_token(request: Request, access: AccessOf, username: Word = "", password: Word = "") -> dict[str, Any]:
    """Return a token for the header `Authorization: Bearer`; it counts until it expires or the server restarts."""
    if not access.closed:
        return {"access_token": None, "token_type": None}
    identity = await _log_in(request, access, username, password)
    left = max(int(identity.expires - time.time()), 0)
    return {"access_token": access.logins.open(identity), "token_type": "bearer", "expires_in": left}


@router.get("/auth/token/valid", summary="Say who is logged in")
def valid_token(user: AnyUser) -> dict[str, Any]:
    """Return the user of the token that came with the request."""
    return user.model_dump()


@router.get("/login", include_in_schema=False, response_class=HTMLResponse)
def login_page(next: str = "/") -> str:
    """Ask for a name and token."""
    return _page(next)


@router.post("/login", include_in_schema=False)
async def login(
    request: Request, access: AccessOf, username: Word = "", password: Word = "", next: Word = "/"
) -> Response:
    """Set the cookie and go where the user wanted to go."""
    if not access.closed:
        return RedirectResponse(own_address(next, request), status_code=303)
    try:
        identity = await _log_in(request, access, username, password)
    except (NotLoggedIn, TooManyLogins) as error:
        return HTMLResponse(_page(next, wrong=str(error)), error.status, headers=dict(error.headers))
    answer = RedirectResponse(own_address(next, request), status_code=303)
    answer.set_cookie(
        COOKIE,
        access.logins.open(identity),
        max_age=max(int(identity.expires - time.time()), 0),
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
        path=request.scope.get("root_path") or "/",
    )
    return answer


@router.get("/logout", include_in_schema=False)
@router.post("/logout", include_in_schema=False)
def logout(request: Request, access: AccessOf) -> Response:
    """End the login, unless a page of another site asks for it."""
    if request.headers.get("sec-fetch-site") == "cross-site":
        return RedirectResponse(own_address("/", request), status_code=303)
    access.logins.close(sent_token(request) or "")
    answer = RedirectResponse(f"{request.scope.get('root_path', '')}/login", status_code=303)
    answer.delete_cookie(COOKIE, path=request.scope.get("root_path") or "/")
    return answer


def own_address(wanted: str, request: Request) -> str:
    """Return `wanted` if it is a path of this server, else the start page."""
    plain = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and wanted.isprintable()
    return wanted if plain else f"{request.scope.get('root_path', '')}/"


async def _log_in(request: Request, access: Access, name: str, password: str) -> Identity:
    """Return who logs in.

    Raises:
        NotLoggedIn: name and password do not belong together.
        TooManyLogins: it was tried too often.
    """
    client = request.client.host if request.client else ""
    key = f"{name[:200].lower()} from {client}"  # not the name alone: an attacker elsewhere cannot lock a user out
    wait_s = access.throttle.wait_s(key)
    if wait_s > 0:
        raise TooManyLogins(math.ceil(wait_s))
    identity = await anyio.to_thread.run_sync(access.log_in, name, password)
    if identity is None:
        access.throttle.failed(key)
        raise NotLoggedIn("Name and token do not belong together, or the token has expired.")
    access.throttle.succeeded(key)
    return identity


def _page(wanted: str, *, wrong: str = "") -> str:
    return render("login.html", wanted=wanted[:2000], wrong=wrong)
