"""The gate before every route: who asks, from where, and whether they may.

Where nobody logs in, only this machine is answered, and only under its own names. Where there are users or an OpenID
provider, every request but those of `access.PUBLIC` needs a login: a bearer token, or the cookie of `/login`, which is
what OHIF can send. A page of another site cannot act for a user: its requests are refused by their Origin.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

import anyio
from fastapi import Request
from monailabel.config import settings
from monailabel.endpoints.user.auth import User
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from slicecast.errors import SlicecastError
from slicecast.server.auth import AuthSettings
from slicecast.server.security.addresses import READ, is_address, is_own_host, is_this_machine, needed
from slicecast.server.security.logins import Identity, Logins, Throttle
from slicecast.server.security.oidc import Provider
from slicecast.server.security.users import Account, Role, Users

COOKIE = "slicecast_login"
IDENTITY = "slicecast.identity"
"""Where a request's scope holds who sent it."""

OPEN_IT = (
    "This server has no logins and answers only programs of its own machine. To open it, add users with "
    "`slicecast users add NAME --role admin` and start it again with --host, or see docs/security.md."
)


@dataclass(frozen=True, slots=True)
class Access:
    """Everything that decides about a request.

    Args:
        users: those of the users' file.
        settings: of logins.
        provider: of OpenID tokens, or None.
        closed: logins are needed. Decided at start, so that losing the users' file opens nothing.
        insecure: without logins, answer everybody all the same.
        origins: other sites whose pages may send requests.
        logins: those who are in.
        throttle: those who tried too often.
    """

    users: Users
    settings: AuthSettings
    provider: Provider | None
    closed: bool
    insecure: bool = False
    origins: Collection[str] = ()
    logins: Logins = field(default_factory=Logins)
    throttle: Throttle = field(default_factory=lambda: Throttle(5))

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


class Gate:
    """The middleware."""

    def __init__(self, app: ASGIApp, *, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http":
            refusal = await self._refusal(Request(scope))
            await (refusal or self._app)(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _refusal(self, request: Request) -> Response | None:
        wrong = self._from_elsewhere(request)
        if wrong:
            return problem(403, wrong)
        if not self._access.closed:
            return None
        role = needed(request.method, route_path(request))
        try:
            token = sent(request)
            identity = await anyio.to_thread.run_sync(self._access.identify, token) if token else None
        except SlicecastError as error:
            return problem(503, str(error))
        request.scope[IDENTITY] = identity
        if identity is not None:  # read by `callers`
            request.state.user = identity.name
            request.state.roles = {role.name for role in Role if role <= identity.role}
        if role is None:
            return None
        if identity is None:
            return ask_to_log_in(request)
        if identity.role < role:
            return problem(403, f"This needs the role {role.name}; you are {identity.role.name}. Ask an administrator.")
        return None

    def _from_elsewhere(self, request: Request) -> str | None:
        """Say what is wrong about where a request comes from; nothing when all is well."""
        access, host = self._access, request.headers.get("host", "")
        client = request.client.host if request.client else None
        if not access.closed and not access.insecure:
            if not is_this_machine(client):
                return OPEN_IT
            if is_address(client) and not is_own_host(host, access.settings.hosts):
                return f"This server is not '{host[:100]}'. Ask for 127.0.0.1, or add that to `hosts` in server.yaml."
        if request.method in READ:
            return None
        origin = request.headers.get("origin")
        if origin is None:
            foreign = request.headers.get("sec-fetch-site") == "cross-site"
        else:
            foreign = urlsplit(origin).netloc.lower() != host.lower() and origin.rstrip("/") not in access.origins
        return "A page of another site sent this request; it is not carried out." if foreign else None


def sent(request: Request) -> str | None:
    """Return the token that came with a request: a bearer's, else the cookie's."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return request.cookies.get(COOKIE)


def route_path(request: Request) -> str:
    """Return the path as MONAI Label's routes have it, without what stands before them."""
    path: str = request.scope["path"].removeprefix(request.scope.get("root_path", "").rstrip("/"))
    return path.removeprefix(settings.MONAI_LABEL_API_STR) or "/"


def ask_to_log_in(request: Request) -> Response:
    """Send a browser that wants a page to the login, and tell programs to send a token."""
    root = request.scope.get("root_path", "").rstrip("/")
    if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"{root}/login?next={quote(wanted, safe='')}", status_code=303)
    detail = "Log in first: send 'Authorization: Bearer TOKEN', or open /login in a browser."
    return JSONResponse({"detail": detail}, status_code=401, headers={"WWW-Authenticate": "Bearer"})


def problem(status: int, detail: str) -> Response:
    """Answer with a sentence."""
    return JSONResponse({"detail": detail}, status_code=status)


def current_user(request: Request) -> User:
    """Return who is logged in, with MONAI Label's names of their roles; takes the place of MONAI Label's own function.

    Where nobody logs in, everybody is MONAI Label's user `admin`, as without Slicecast.
    """
    identity: Identity | None = request.scope.get(IDENTITY)
    names = {
        Role.annotator: [settings.MONAI_LABEL_AUTH_ROLE_USER, settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR],
        Role.reviewer: [settings.MONAI_LABEL_AUTH_ROLE_REVIEWER],
        Role.admin: [settings.MONAI_LABEL_AUTH_ROLE_ADMIN],
    }
    role = identity.role if identity else Role.admin
    held = [name for level, some in names.items() if level <= role for name in some]
    return User(username=identity.name if identity else "admin", roles=held)
