"""What a client may send: bodies of a limited size, plain names, files of known kinds, and JSON that can be read again.

Python reads more than JSON allows, and what is kept of a request (the infos of images and labels) is later part of
every answer; one NaN in it and no client could list the studies any more. Names of images, tags and files become names
of files and lines of a log.
"""

import json
import math
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

import anyio
from fastapi import UploadFile
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from slicecast.errors import InputError, TooLarge
from slicecast.server.errors import BodyTooLarge, problem
from slicecast.server.settings import server_settings

BROKEN = re.compile("[\ud800-\udfff]")  # A lone surrogate; no encoding can write it
PASSED_ON = ("/proxy/", "/dicom-web", "/dicomweb")  # Routes that take DICOM, or pass bodies on
FORM = "application/x-www-form-urlencoded"


def parse(text: str | bytes, *, max_depth: int, max_nodes: int) -> Any:
    """Parse JSON.

    Raises:
        TooLarge: it holds more than `max_nodes` values, keys counted.
        ValueError: it is none, or holds what must not be kept; the text says what.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError(f"it is nested more than {max_depth} deep") from error
    require_plain(value, max_depth=max_depth, max_nodes=max_nodes)
    return value


def require_plain(value: Any, *, max_depth: int, max_nodes: int) -> None:
    """Raise TooLarge for more values, and ValueError for infinite numbers, lone surrogates and deeper nesting."""
    level, count = [value], 0
    for _ in range(max_depth):
        count += len(level)
        if count > max_nodes:
            raise TooLarge(f"The JSON holds more than {max_nodes} values. Send less at a time.")
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


def json_object(text: str, field: str) -> dict[str, Any]:
    """Parse a form field that must be a JSON object.

    Raises:
        TooLarge: it is longer than accepted, or holds more values.
        InputError: it is something else.
    """
    limits = server_settings().limits
    if len(text) > limits.json_bytes:
        raise TooLarge(f"The field '{field}' is larger than {limits.json_mb} MiB. Send less at a time.")
    try:
        value = parse(text, max_depth=limits.json_depth, max_nodes=limits.json_nodes)
    except TooLarge:
        raise
    except ValueError as error:
        detail = f"The field '{field}' is not valid JSON ({error}). Send an object such as {{}}."
        raise InputError(detail) from error
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise InputError(f"The field '{field}' holds JSON of type {kind}. Send an object such as {{}}.")
    return value


class HttpMiddleware:
    """A middleware that answers requests; what is no HTTP, such as the server's start, passes by."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await (self._answer if scope["type"] == "http" else self._app)(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise NotImplementedError


class StrictJson(HttpMiddleware):
    """Middleware that looks at bodies of JSON before anybody else; large ones are refused before by `LimitBody`.

    Args:
        max_depth: of lists and objects inside each other.
        max_nodes: values and keys.
    """

    def __init__(self, app: ASGIApp, *, max_depth: int, max_nodes: int) -> None:
        super().__init__(app)
        self._limits = {"max_depth": max_depth, "max_nodes": max_nodes}

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_json(scope):
            await self._app(scope, receive, send)
            return
        messages, body = await _read(receive)
        try:
            if body.strip():
                await anyio.to_thread.run_sync(lambda: parse(body, **self._limits))
        except TooLarge as error:
            await problem(413, str(error))(scope, receive, send)
            return
        except ValueError as error:
            detail = f"The body is not valid JSON: {error}. Send an object such as {{}}."
            await problem(422, detail)(scope, receive, send)
            return

        async def again() -> Message:
            return messages.pop(0) if messages else await receive()

        await self._app(scope, again, send)


def _is_json(scope: Scope) -> bool:
    if scope["method"] in ("GET", "HEAD") or scope["path"].startswith(PASSED_ON):
        return False
    return _is_json_type(_content_type(scope))


def _content_type(scope: Scope) -> str:
    return Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower()


def _is_json_type(kind: str) -> bool:
    return kind == "application/json" or kind.endswith("+json")


async def _read(receive: Receive) -> tuple[list[Message], bytes]:
    messages: list[Message] = []
    while not messages or (messages[-1]["type"] == "http.request" and messages[-1].get("more_body")):
        messages.append(await receive())
    return messages, b"".join(message.get("body", b"") for message in messages)


class LimitBody(HttpMiddleware):
    """Middleware that refuses large bodies with 413, by what they claim and by what comes.

    Args:
        limits: bytes, by the beginning of the path; the longest that fits counts.
        text_bytes: of JSON and forms without files, on all routes that do not pass them on: both are parsed as a whole.
    """

    def __init__(self, app: ASGIApp, *, limits: Mapping[str, int], text_bytes: int) -> None:
        super().__init__(app)
        self._text_bytes = text_bytes
        self._limits = sorted(limits.items(), key=lambda item: -len(item[0]))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit = self._limit(scope)
        if limit is None:
            await self._app(scope, receive, send)
            return
        claimed = Headers(scope=scope).get("content-length", "")
        if claimed.isdecimal() and int(claimed) > limit:
            await problem(413, _too_large(limit))(scope, receive, send)
            return
        received, begun = 0, False

        async def counting() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise BodyTooLarge(_too_large(limit))
            return message

        async def noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, counting, noting)
        except BodyTooLarge:  # where no handler between here and the route has answered it
            if begun:
                raise
            await problem(413, _too_large(limit))(scope, receive, send)

    def _limit(self, scope: Scope) -> int | None:
        limit = next((limit for start, limit in self._limits if scope["path"].startswith(start)), None)
        kind = _content_type(scope)
        is_text = kind in ("", FORM) or _is_json_type(kind)
        if limit is None or not is_text or scope["path"].startswith(PASSED_ON):
            return limit
        return min(limit, self._text_bytes)


def _too_large(limit: int) -> str:
    return f"The request is larger than {limit >> 20} MiB. Send less at a time."


ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".dcm")
"""One file, complete in itself; headers that lead to other files (.nhdr, .mhd) are not taken."""
MAX_NAME_BYTES = 255  # Of a file's name, on every file system there is; ids and tags become such names


@contextmanager
def received(upload: UploadFile | None) -> Iterator[str | None]:
    """Put an upload into a temporary file, named as MONAI Label does, for as long as the block lasts.

    Raises:
        InputError: it is of a kind that is not read.
    """
    if upload is None:
        yield None
        return
    with tempfile.NamedTemporaryFile(suffix=upload_ending(upload)) as stream:
        shutil.copyfileobj(upload.file, stream)
        stream.flush()
        yield stream.name


def upload_ending(upload: UploadFile) -> str:
    """Return the ending of a sent file's name, one of ENDINGS; nothing else of the name is used.

    Raises:
        InputError: it has another one.
    """
    name = (upload.filename or "").lower()
    if "." not in name:
        return ENDINGS[0]
    found = next((ending for ending in ENDINGS if name.endswith(ending)), None)
    if found is None:
        raise InputError(f"Files such as '{name[-40:]}' are not read. Send {', '.join(ENDINGS)}.")
    return found


def require_plain_text(text: str, what: str) -> None:
    """Raise InputError for text with control characters, or too long for a name."""
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise InputError(f"'{what}' holds control characters. Use a plain name.")
    if len(text.encode()) > MAX_NAME_BYTES:
        raise InputError(f"'{what}' is longer than {MAX_NAME_BYTES} bytes. Use a shorter name.")


def require_file_name(name: str) -> None:
    """Raise InputError for the name of a sent file that is no name, or a path upwards."""
    require_plain_text(name, "filename")
    if PurePosixPath(name.replace("\\", "/")).name in ("", ".", ".."):
        raise InputError(f"'{name}' is no name of a file. Send one such as scan.nii.gz.")
