"""How much a client may send: a request that is too large is refused before it is kept."""

from collections.abc import Mapping

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class LimitBody:
    """Middleware that refuses large bodies with 413, by what they claim and by what comes.

    Args:
        limits: bytes, by the beginning of the path; the longest that fits counts.
    """

    def __init__(self, app: ASGIApp, *, limits: Mapping[str, int]) -> None:
        self._app = app
        self._limits = sorted(limits.items(), key=lambda item: -len(item[0]))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        limit = self._limit(scope)
        if limit is None:
            await self._app(scope, receive, send)
            return
        claimed = Headers(scope=scope).get("content-length", "")
        if claimed.isdecimal() and int(claimed) > limit:
            await JSONResponse({"detail": _too_large(limit)}, status_code=413)(scope, receive, send)
            return
        received, begun = 0, False

        async def counting() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise HTTPException(413, detail=_too_large(limit))
            return message

        async def noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, counting, noting)
        except HTTPException:  # where nobody between here and the route has made an answer of it
            if begun or received <= limit:
                raise
            await JSONResponse({"detail": _too_large(limit)}, status_code=413)(scope, receive, send)

    def _limit(self, scope: Scope) -> int | None:
        if scope["type"] != "http":
            return None
        return next((limit for start, limit in self._limits if scope["path"].startswith(start)), None)


def _too_large(limit: int) -> str:
    return f"The request is larger than {limit >> 20} MiB. Send less at a time."
