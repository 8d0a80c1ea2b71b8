"""Puts the middleware that guards the server around its application: gate, limits, other sites, headers."""

import logging
from collections.abc import Mapping
from dataclasses import replace

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from monailabel.config import settings
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from slicecast.config import users_file
from slicecast.server.security.gate import Gate, NamedProxies, NoteCaller
from slicecast.server.security.limits import LimitBody, StrictJson
from slicecast.server.security.logins import Access
from slicecast.server.security.users import Users
from slicecast.server.settings import AuthSettings, ServerSettings

logger = logging.getLogger(__name__)

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
            allow_methods=["GET", "HEAD", "POST", "PUT", "DELETE"],
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


class HeadAsGet:
    """The middleware that answers HEAD as GET, without the content: FastAPI's routes know GET only."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def without_content(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        await self._app({**scope, "method": "GET"}, receive, without_content)


class SecurityHeaders:
    """The middleware; what a route sets itself stays.

    Args:
        other_origins: pages of other sites may read answers (CORS), so these may be loaded from there.
    """

    def __init__(self, app: ASGIApp, *, other_origins: bool = False) -> None:
        self._app = app
        self._other_origins = other_origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Add the headers to an answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
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
