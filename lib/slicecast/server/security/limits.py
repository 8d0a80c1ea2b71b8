"""JSON as other programs can read it again: no NaN, no broken characters, not endlessly deep.

Python reads more than JSON allows, and what is kept of a request (the infos of images and labels) is later part of
every answer; one NaN in it and no client could list the studies any more.
"""

import json
import math
import re
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BROKEN = re.compile("[\ud800-\udfff]")
"""Half of a character; no encoding can write it."""

BY_MODEL = ("/slicecast/", "/proxy/", "/dicom-web", "/dicomweb")
"""Routes that look closely themselves, or that pass on what they get."""


def parse(text: str | bytes, *, max_depth: int) -> Any:
    """Parse JSON.

    Raises:
        ValueError: it is none, or holds what must not be kept; the text says what.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError(f"it is nested more than {max_depth} deep") from error
    require_plain(value, max_depth=max_depth)
    return value


def require_plain(value: Any, *, max_depth: int) -> None:
    """Raise ValueError for numbers that are not finite, broken characters, and nesting beyond `max_depth`."""
    level = [value]
    for _ in range(max_depth):
        inner: list[Any] = []
        for entry in level:
            if isinstance(entry, dict):
                inner += [*entry, *entry.values()]
            elif isinstance(entry, list):
                inner += entry
            elif isinstance(entry, float) and not math.isfinite(entry):
                raise ValueError("a number is too large")
            elif isinstance(entry, str) and BROKEN.search(entry):
                raise ValueError("a text holds half a character (a lone surrogate)")
        level = inner
        if not level:
            return
    raise ValueError(f"it is nested more than {max_depth} deep")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


class StrictJson:
    """Middleware that looks at bodies of JSON before anybody else; large ones are refused before by `LimitBody`.

    Args:
        max_depth: of lists and objects inside each other.
    """

    def __init__(self, app: ASGIApp, *, max_depth: int) -> None:
        self._app = app
        self._max_depth = max_depth

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if not _is_json(scope):
            await self._app(scope, receive, send)
            return
        messages, body = await _read(receive)
        try:
            if body.strip():
                parse(body, max_depth=self._max_depth)
        except ValueError as error:
            detail = f"The body is not valid JSON: {error}. Send an object such as {{}}."
            await JSONResponse({"detail": detail}, status_code=422)(scope, receive, send)
            return

        async def again() -> Message:
            return messages.pop(0) if messages else await receive()

        await self._app(scope, again, send)


def _is_json(scope: Scope) -> bool:
    if scope["type"] != "http" or scope["method"] in ("GET", "HEAD") or scope["path"].startswith(BY_MODEL):
        return False
    kind = Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


async def _read(receive: Receive) -> tuple[list[Message], bytes]:
    messages: list[Message] = []
    while not messages or (messages[-1]["type"] == "http.request" and messages[-1].get("more_body")):
        messages.append(await receive())
    return messages, b"".join(message.get("body", b"") for message in messages)
