"""Headers that keep a browser from doing more with an answer than was meant."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OURS = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
)
VIEWER = "object-src 'none'; base-uri 'self'; frame-ancestors 'self'"
"""OHIF brings scripts, workers and WebAssembly that a stricter policy would stop."""
DOCS = OURS + "; script-src 'self' 'unsafe-inline'; worker-src 'self' blob:"
"""Their pages start themselves with a line of script, and Redoc searches in a worker."""

POLICIES = (("/ohif", VIEWER), ("/static", VIEWER), ("/docs", DOCS), ("/redoc", DOCS), ("", OURS))
"""By the beginning of the path; the first that fits counts."""

ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


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
