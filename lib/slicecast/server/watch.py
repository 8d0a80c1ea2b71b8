"""Blocking work in a thread, which learns when its client has gone."""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

import anyio
from fastapi import Request

T = TypeVar("T")


async def while_wanted(
    request: Request, work: Callable[[Callable[[], bool]], T], *, limiter: anyio.CapacityLimiter
) -> T:
    """Run ``work(cancelled)`` in a thread; ``cancelled()`` turns true when the client breaks the connection.

    Args:
        request: its body must have been read.
        limiter: of the threads.
    """
    gone = threading.Event()
    watcher = asyncio.create_task(watch(request, gone))
    try:
        return await anyio.to_thread.run_sync(work, gone.is_set, limiter=limiter)
    finally:
        watcher.cancel()


async def watch(request: Request, gone: threading.Event) -> None:
    """Set the event when the client breaks the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    gone.set()
