"""The gate before every route: who asks, from where, and whether they may.

Without logins, only this machine is answered, and only under its own names; `--insecure` lets others ask too, but not
under other names. Where there are users or an OpenID provider, every request but those of `PUBLIC` needs a login: a
bearer token, or the cookie of `/login`, which is what OHIF can send. A page of another site cannot act for a user: its
requests are refused by their Origin. `secure` puts the gate and the other guards around the application.
"""

import logging
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import quote, unquote, urlsplit

import anyio
from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from monailabel.config import settings
from monailabel.endpoints.user.auth import User
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from slicecast.config import users_file
from slicecast.errors import SlicecastError
from slicecast.inference.caller import MAX_LENGTH, Caller, calling
from slicecast.server.dependencies import USER
from slicecast.server.errors import problem
from slicecast.server.security.limits import HttpMiddleware, LimitBody, StrictJson
from slicecast.server.security.logins import Access, sent_token
from slicecast.server.security.users import Identity, Role, Users
from slicecast.server.settings import AuthSettings, ServerSettings

logger = logging.getLogger(__name__)

FORWARDING = frozenset(
    (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port", b"x-real-ip", b"forwarded")
)
"""Headers that a proxy adds, and anybody else can."""


class NamedProxies:
    """Middleware that believes the forwarding headers of the proxies that the settings name, and uses them up.

    Such a header that is still there behind it came from somebody else.

    Args:
        proxies: addresses and networks.
    """

    def __init__(self, app: ASGIApp, *, proxies: Collection[str]) -> None:
        self._app = app
        self._believe = ProxyHeadersMiddleware(self._without_headers, list(proxies))  # type: ignore[arg-type]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        client = scope.get("client")
        named = scope["type"] == "http" and client is not None and client[0] in self._believe.trusted_hosts
        await (self._believe if named else self._app)(scope, receive, send)  # type: ignore[arg-type]

    async def _without_headers(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["headers"] = [(name, value) for name, value in scope["headers"] if name not in FORWARDING]
        await self._app(scope, receive, send)


def was_forwarded(scope: Scope) -> bool:
    """Whether a request came by a proxy that nobody named, or pretends to."""
    return any(name in FORWARDING for name, _ in scope["headers"])


def is_address(text: str | None) -> bool:
    """Whether a text is a network address."""
    return _address(text) is not None


def is_this_machine(client: str | None) -> bool:
    """Whether a request comes from this machine; what is no address is foreign."""
    address = _address(client)
    return address is not None and (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _address(text: str | None) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address((text or "").partition("%")[0])
    except ValueError:
        return None


def host_name(host: str) -> str:
    """Return a Host header's name without its port, lower case."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.lower()


def is_own_host(host: str, named: Collection[str]) -> bool:
    """Whether a server without logins may answer to that name.

    A web page elsewhere can make its own name point to this machine and so read answers (DNS rebinding); it cannot
    make an address or `localhost` its own.
    """
    name = host_name(host)
    return name == "localhost" or name.endswith(".localhost") or name in named or is_address(name)


USER_COOKIE = "slicecast_user"  # Set by the page `/campaign/`; OHIF, from the same server, sends it with every request
USER_HEADER = "x-slicecast-user"

OPEN_IT = (
    "This server has no logins and answers only programs of its own machine. To open it, add users with "
    "`slicecast users add NAME --role admin` and start it again with --host, or see docs/security.md."
)

UNNAMED_PROXY = (
    "This server has no logins and answers only programs of its own machine, but the request names another sender. "
    "If a proxy of yours adds X-Forwarded-For, name it under `proxies` in server.yaml."
)

READ = frozenset(("GET", "HEAD", "OPTIONS"))
ANY: frozenset[str] = frozenset()

LOOK = tuple(f"/assets/{name}" for name in ("slicecast.css", "start.css", "theme.js"))
"""Of the login's page."""

OPENID = ("/login/openid", "/login/openid/back")
"""A browser's way to the provider and back."""

PUBLIC = frozenset(("/healthz", "/login", "/logout", "/favicon.ico", "/auth", "/auth/", "/auth/token", *OPENID, *LOOK))
"""What must work for those who are not logged in yet; none of it says anything about the studies."""

MANUAL = "/manual"  # The documentation, likewise: a refused login leads there


@dataclass(frozen=True, slots=True)
class AccessRule:
    """Requests that need more than a login; no methods means all."""

    role: Role
    path: re.Pattern[str]
    methods: frozenset[str] = ANY


RULES = (
    AccessRule(Role.admin, re.compile(r"/(logs|model|reload)(/.*)?")),
    AccessRule(Role.admin, re.compile(r"/(train|batch)(/.*)?"), frozenset(("POST", "PUT", "DELETE", "PATCH"))),
    AccessRule(Role.admin, re.compile(r"/datastore(/.*)?"), frozenset(("DELETE",))),
    AccessRule(Role.reviewer, re.compile(r"/datastore/(dataset|(image|label)/info)/?"), frozenset(("PUT",))),
    AccessRule(Role.reviewer, re.compile(r"/datastore/dataset/?")),
)


def needed(method: str, path: str) -> Role | None:
    """Return the least role that a request needs; None when it needs no login.

    A path that no rule names needs a login, so a new route is never open by mistake.
    """
    if path in PUBLIC or path.startswith(f"{MANUAL}/"):
        return None
    for rule in RULES:
        if (not rule.methods or method in rule.methods) and rule.path.fullmatch(path):
            return rule.role
    return Role.annotator


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
        if self._may_measure(request):
            return None
        role = needed(request.method, route_path(request))
        try:
            token = sent_token(request)
            identity = await anyio.to_thread.run_sync(self._access.identify, token) if token else None
        except SlicecastError as error:
            return problem(503, str(error))
        if identity is not None:  # read by `caller_of`
            request.state.user = identity.name
            request.state.roles = {role.name for role in Role if role <= identity.role}
            request.scope[USER] = monailabel_user(identity)
        if role is None:
            return None
        if identity is None:
            return ask_to_log_in(request)
        if identity.role < role:
            return problem(403, f"This needs the role {role.name}; you are {identity.role.name}. Ask an administrator.")
        return None

    def _may_measure(self, request: Request) -> bool:
        """Whether this is Prometheus, at an address that the settings name; one that a proxy only tells of is not."""
        address = _address(request.client.host if request.client else None)
        return (
            route_path(request) == "/metrics"
            and address is not None
            and not was_forwarded(request.scope)
            and any(address in ip_network(network) for network in self._access.settings.metrics)
        )

    def _from_elsewhere(self, request: Request) -> str | None:
        """Say what is wrong about where a request comes from; nothing when all is well."""
        access, host = self._access, request.headers.get("host", "")
        client = request.client.host if request.client else None
        if not access.closed and not access.insecure:
            if was_forwarded(request.scope):
                return UNNAMED_PROXY
            if not is_this_machine(client):
                return OPEN_IT
        if not access.closed and not is_own_host(host, access.hosts):
            return f"This server is not '{host[:100]}'. Ask for 127.0.0.1, or add that to `hosts` in server.yaml."
        if request.method in READ:
            return None
        origin = request.headers.get("origin")
        if origin is None:
            foreign = request.headers.get("sec-fetch-site") == "cross-site"
        else:
            foreign = urlsplit(origin).netloc.lower() != host.lower() and origin.rstrip("/") not in access.origins
        return "A page of another site sent this request; it is not carried out." if foreign else None


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
    return problem(401, detail, headers={"WWW-Authenticate": "Bearer"})


def monailabel_user(identity: Identity) -> User:
    """Return who is logged in, with MONAI Label's names of their roles."""
    names = {
        Role.annotator: [settings.MONAI_LABEL_AUTH_ROLE_USER, settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR],
        Role.reviewer: [settings.MONAI_LABEL_AUTH_ROLE_REVIEWER],
        Role.admin: [settings.MONAI_LABEL_AUTH_ROLE_ADMIN],
    }
    held = [name for level, some in names.items() if level <= identity.role for name in some]
    return User(username=identity.name, roles=held)


class NoteCaller(HttpMiddleware):
    """Middleware behind the gate that tells the queue, sessions and the campaign who asks."""

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        with calling(caller_of(HTTPConnection(scope))):
            await self._app(scope, receive, send)


def caller_of(request: HTTPConnection) -> Caller:
    """Read who asks from a request; a login counts before anything that a client says of itself."""
    claimed = request.headers.get(USER_HEADER) or unquote(request.cookies.get(USER_COOKIE, ""))
    roles = getattr(request.state, "roles", None)
    return Caller(
        user=getattr(request.state, "user", None),
        name=claimed.strip()[:MAX_LENGTH] or None,
        address=request.client.host if request.client else "",
        roles=None if roles is None else frozenset(roles),
    )


UPLOADS = ("/datastore/", "/session/", "/infer/", "/dicom-web", "/dicomweb")  # Where files come in

OURS = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
)
VIEWER = "object-src 'none'; base-uri 'self'; frame-ancestors 'self'"
"""OHIF brings scripts, workers and WebAssembly that a stricter policy would stop."""
DOCS = OURS + "; script-src 'self' 'unsafe-inline'; worker-src 'self' blob:"
"""Their pages start themselves with a line of script, and Redoc searches in a worker."""

POLICIES = (("/ohif", VIEWER), ("/static", VIEWER), ("/docs", DOCS), ("/redoc", DOCS), ("/manual", DOCS), ("", OURS))
"""By the beginning of the path; the first that fits counts."""

ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def secure(app: FastAPI, chosen: ServerSettings) -> None:
    """Guard an application; what is added last sees a request first."""
    origins = [str(origin).rstrip("/") for origin in settings.MONAI_LABEL_CORS_ORIGINS]
    insecure = str(settings.MONAI_LABEL_APP_CONF.get("insecure", "")).lower() in ("true", "1", "yes")
    access = Access.of(Users(users_file()), with_stock_provider(chosen.auth), insecure=insecure, origins=origins)
    settings.MONAI_LABEL_AUTH_ENABLE = access.closed  # its own routes then ask for roles too, besides the gate
    app.state.access = access
    app.add_middleware(HeadAsGet)
    app.add_middleware(NoteCaller)
    limits = chosen.limits
    app.add_middleware(StrictJson, max_depth=limits.json_depth, max_nodes=limits.json_nodes)
    sizes = body_limits(chosen, prefix=settings.MONAI_LABEL_API_STR)
    app.add_middleware(LimitBody, limits=sizes, text_bytes=limits.json_bytes)
    app.add_middleware(Gate, access=access)
    app.add_middleware(SecurityHeaders, other_origins=bool(origins))
    if origins:  # MONAI Label would otherwise let every web page in
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-Slicecast-User"],
        )
    app.add_middleware(NamedProxies, proxies=access.settings.proxies)
    if insecure and not access.closed:
        logger.warning("Anybody who can reach this server may read and change its studies (--insecure)")


def body_limits(chosen: ServerSettings, *, prefix: str) -> Mapping[str, int]:
    """Return how many bytes a request may bring, by the beginning of its path."""
    upload, small = chosen.limits.upload_mb << 20, chosen.limits.body_mb << 20
    files = {f"{prefix}{path}": upload for path in UPLOADS}
    return {
        "": small,
        **files,
        f"{prefix}/proxy/": chosen.proxy.body_mb << 20,
        "/slicecast/": chosen.sessions.body_mb << 20,
        "/nninteractive/": chosen.nninteractive.body_mb << 20,
    }


def with_stock_provider(auth: AuthSettings) -> AuthSettings:
    """Use MONAI Label's own settings of an OpenID provider where they are switched on and ours are empty."""
    if not settings.MONAI_LABEL_AUTH_ENABLE or auth.oidc_issuer:
        return auth
    return replace(
        auth,
        oidc_issuer=settings.MONAI_LABEL_AUTH_REALM_URI,
        oidc_audience=auth.oidc_audience or settings.MONAI_LABEL_AUTH_CLIENT_ID,
        oidc_client_id=settings.MONAI_LABEL_AUTH_CLIENT_ID,
        oidc_roles=settings.MONAI_LABEL_AUTH_TOKEN_ROLES.replace("#", "."),
        oidc_annotator=settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR,
        oidc_reviewer=settings.MONAI_LABEL_AUTH_ROLE_REVIEWER,
        oidc_admin=settings.MONAI_LABEL_AUTH_ROLE_ADMIN,
    )


class HeadAsGet(HttpMiddleware):
    """The middleware that answers HEAD as GET, without the content: FastAPI's routes know GET only."""

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def without_content(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        await self._app({**scope, "method": "GET"}, receive, without_content)


class SecurityHeaders(HttpMiddleware):
    """The middleware; what a route sets itself stays.

    Args:
        other_origins: pages of other sites may read answers (CORS), so these may be loaded from there.
    """

    def __init__(self, app: ASGIApp, *, other_origins: bool) -> None:
        super().__init__(app)
        self._other_origins = other_origins

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", "").rstrip("/"))

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._add(MutableHeaders(scope=message), path)
            await send(message)

        await self._app(scope, receive, with_headers)

    def _add(self, headers: MutableHeaders, path: str) -> None:
        for name, value in ALWAYS.items():
            if not (self._other_origins and name == "Cross-Origin-Resource-Policy"):
                headers.setdefault(name, value)
        if headers.get("content-type", "").startswith("text/html"):
            headers.setdefault("Content-Security-Policy", next(p for start, p in POLICIES if path.startswith(start)))
