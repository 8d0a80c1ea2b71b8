"""Notes who asks, for the queue, sessions and the campaign: see `slicecast.inference.caller`.

Where logins are on, whoever checks them puts `user` and `roles` into the request's state (an outer middleware) and
they count before anything a client says of itself.
"""

from urllib.parse import unquote

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from slicecast.inference.caller import MAX_LENGTH, Caller, calling

COOKIE = "slicecast_user"
"""Set by the page `/campaign/`; OHIF, from the same server, sends it with every request."""

HEADER = "x-slicecast-user"


class NoteCaller:
    """Middleware that makes the caller known to everything below."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with calling(caller_of(HTTPConnection(scope))):
            await self._app(scope, receive, send)


def caller_of(request: HTTPConnection) -> Caller:
    """Read who asks from a request."""
    said = request.headers.get(HEADER) or unquote(request.cookies.get(COOKIE, ""))
    roles = getattr(request.state, "roles", None)
    return Caller(
        user=getattr(request.state, "user", None),
        name=said.strip()[:MAX_LENGTH] or None,
        address=request.client.host if request.client else "",
        roles=None if roles is None else frozenset(roles),
    )
