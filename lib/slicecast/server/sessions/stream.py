"""Lines of JSON that a thread produces while the client already reads the first ones."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable

import anyio
from fastapi import Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from slicecast.errors import SlicecastError
from slicecast.inference.status import http_status
from slicecast.server.sessions.models import ErrorEvent
from slicecast.server.threads import watch

logger = logging.getLogger(__name__)

NDJSON = "application/x-ndjson"

Put = Callable[[BaseModel], None]
"""Sends one line; may be called from any thread."""


async def stream_lines(
    request: Request, work: Callable[[Put, threading.Event], BaseModel], *, limiter: anyio.CapacityLimiter
) -> StreamingResponse:
    """Run ``work(put, stop)`` in a thread and send what it puts, then what it returns.

    An error before the first line is the answer's status; a later one is the last line. ``stop`` is set when the client
    breaks the connection.

    Raises:
        SlicecastError: the work failed before its first line.
    """
    stop = threading.Event()
    lines: asyncio.Queue[BaseModel | BaseException | None] = asyncio.Queue()
    producer = asyncio.create_task(_produce(work, lines, stop, limiter))
    watcher = asyncio.create_task(watch(request, stop))
    first = await lines.get()
    if isinstance(first, BaseException):
        watcher.cancel()
        await producer
        raise first

    async def content() -> AsyncIterator[bytes]:
        line: BaseModel | BaseException | None = first
        try:
            while line is not None:
                yield _line(line)
                line = await lines.get()
        finally:
            stop.set()
            watcher.cancel()
            await asyncio.shield(producer)

    return StreamingResponse(content(), media_type=NDJSON, headers={"X-Accel-Buffering": "no"})


async def _produce(
    work: Callable[[Put, threading.Event], BaseModel],
    lines: "asyncio.Queue[BaseModel | BaseException | None]",
    stop: threading.Event,
    limiter: anyio.CapacityLimiter,
) -> None:
    loop = asyncio.get_running_loop()

    def put(line: BaseModel) -> None:
        loop.call_soon_threadsafe(lines.put_nowait, line)

    try:
        last: BaseModel | BaseException = await anyio.to_thread.run_sync(work, put, stop, limiter=limiter)
    except Exception as error:  # the outermost boundary of the work: it becomes the answer or its last line
        last = error
    lines.put_nowait(last)
    lines.put_nowait(None)


def _line(line: BaseModel | BaseException) -> bytes:
    if isinstance(line, SlicecastError):
        line = ErrorEvent(status=http_status(line), detail=str(line))
    elif isinstance(line, BaseException):
        logger.error("A stream broke off", exc_info=line)
        line = ErrorEvent(status=500, detail="The server made a mistake; its log says which. Try again.")
    return line.model_dump_json().encode() + b"\n"
