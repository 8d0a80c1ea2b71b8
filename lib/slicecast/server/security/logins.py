"""Logging in: who is logged in, who has tried too often, and the routes.

The routes are MONAI Label's `/auth/` for 3D Slicer and programs, and a page with a cookie for OHIF and the campaign.
Logins are held in memory: a restart logs everybody out.
"""

import math
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

import anyio
from cachetools import LRUCache, TLRUCache
from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from slicecast.errors import NotFound
from slicecast.server.dependencies import AnyUser
from slicecast.server.errors import NotLoggedIn, TooManyLogins, problems
from slicecast.server.html import render
from slicecast.server.security.openid import ATTEMPT_S, Provider
from slicecast.server.security.users import Account, Identity, Role, Users, digest
from slicecast.server.settings import AuthSettings

COOKIE = "slicecast_login"
ATTEMPT_COOKIE = "slicecast_openid"  # Of a browser that is at the provider's page
NOT_LET_IN = (
    "The OpenID provider did not let you in, or gives you no role here. Ask an administrator for one, and try again."
)
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
def login_page(access: AccessOf, next: str = "/") -> str:
    """Ask for a name and token, or lead to the OpenID provider."""
    return _page(next, provider=access.provider is not None)


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
        page = _page(next, provider=access.provider is not None, wrong=str(error))
        return HTMLResponse(page, error.status, headers=dict(error.headers))
    return _enter(request, access, identity, next)


@router.get("/login/openid", include_in_schema=False)
async def to_provider(request: Request, access: AccessOf, next: str = "/") -> Response:
    """Send a browser to the OpenID provider's own page."""
    if access.provider is None:
        raise NotFound("This server has no OpenID provider. Set oidc_issuer in server.yaml, or log in at /login.")
    back = str(request.url_for("from_provider"))
    begin = partial(access.provider.begin, back=back, wanted=next[:2000])
    address, state = await anyio.to_thread.run_sync(begin)
    answer = RedirectResponse(address, status_code=303)
    _set_cookie(request, answer, ATTEMPT_COOKIE, state, int(ATTEMPT_S))
    return answer


@router.get("/login/openid/back", include_in_schema=False)
async def from_provider(request: Request, access: AccessOf, state: str = "", code: str = "") -> Response:
    """Let in who comes back from the provider, in the browser that was sent there."""
    own = secrets.compare_digest(request.cookies.get(ATTEMPT_COOKIE, "").encode(), state.encode())
    found = None
    if access.provider is not None and state and code and own:
        found = await anyio.to_thread.run_sync(access.provider.finish, state, code)
    if found is None:
        return HTMLResponse(_page("/", provider=True, wrong=NOT_LET_IN), 401)
    identity, wanted = found
    answer = _enter(request, access, identity, wanted)
    answer.delete_cookie(ATTEMPT_COOKIE, path=request.scope.get("root_path") or "/")
    return answer


@router.get("/logout", include_in_schema=False)
@router.post("/logout", include_in_schema=False)
def logout(request: Request, access: AccessOf) -> Response:
    """End the login, unless a page of another site asks for it."""
    if request.headers.get("sec-fetch-site") == "cross-site":
        return RedirectResponse(own_address("/", request), status_code=303)
    token = sent_token(request) or ""
    identity = access.logins.find(token)
    access.logins.close(token)
    there = (
        access.provider.end(identity, back=str(request.url_for("login_page"))) if access.provider and identity else None
    )
    answer = RedirectResponse(there or f"{request.scope.get('root_path', '')}/login", status_code=303)
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


def _enter(request: Request, access: Access, identity: Identity, wanted: str) -> Response:
    """Set the cookie and go where the user wanted to go."""
    answer = RedirectResponse(own_address(wanted, request), status_code=303)
    _set_cookie(request, answer, COOKIE, access.logins.open(identity), max(int(identity.expires - time.time()), 0))
    return answer


def _set_cookie(request: Request, answer: Response, name: str, value: str, seconds: int) -> None:
    secure, path = request.url.scheme == "https", request.scope.get("root_path") or "/"
    answer.set_cookie(name, value, max_age=seconds, httponly=True, samesite="lax", secure=secure, path=path)


def _page(wanted: str, *, provider: bool, wrong: str = "") -> str:
    return render("login.html", wanted=wanted[:2000], provider=provider, wrong=wrong)
