"""Blocking work in worker threads: MONAI Label's own routes, and work that stops when its client goes away.

MONAI Label declares every route `async` and then blocks: while one user's mask is computed no other request gets an
answer. Here each of its coroutines runs in a thread with a loop of its own, and its form fields are checked first.
"""

import asyncio
import functools
import inspect
import threading
from collections.abc import Callable, Collection
from typing import Any, TypeVar

import anyio
from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from monailabel.endpoints.user.auth import RBAC

from slicecast.server.dependencies import Needs
from slicecast.server.security.limits import json_object

T = TypeVar("T")

Check = Callable[[dict[str, Any]], None]  # Looks at a route's arguments before it runs; raises a SlicecastError
JSON_FIELDS = ("params", "info")  # Form fields that hold a JSON object as text


def off_loop(router: APIRouter, *, check: Check | None = None, skip: Collection[str] = ()) -> APIRouter:
    """Copy a router of MONAI Label with every route running in a thread.

    Args:
        router: the original, which stays as it is.
        check: looks at the arguments first.
        skip: "METHOD /path" of routes to leave out.
    """
    copy = APIRouter()
    for route in [entry for entry in router.routes if isinstance(entry, APIRoute)]:
        kept = [method for method in sorted(route.methods or ()) if f"{method} {route.path}" not in skip]
        if kept:
            copy.add_api_route(
                route.path,
                _threaded(route.endpoint, check=check),
                methods=kept,
                tags=route.tags,
                summary=route.summary,
                include_in_schema=route.include_in_schema,
                deprecated=route.deprecated,
            )
    return copy


def _threaded(endpoint: Callable[..., Any], *, check: Check | None) -> Callable[..., Any]:
    @functools.wraps(endpoint)
    async def run(**arguments: Any) -> Any:
        await run_in_threadpool(_require_json_objects, arguments)
        if check is not None:
            await run_in_threadpool(check, arguments)
        if "request" in arguments:  # the proxy reads the body, which only this loop can; it is kept for the thread
            await arguments["request"].body()
        return await run_in_threadpool(_call, endpoint, arguments)

    run.__signature__ = _with_our_user(inspect.signature(endpoint))  # type: ignore[attr-defined]
    return run


def _with_our_user(signature: inspect.Signature) -> inspect.Signature:
    """Let MONAI Label's checks of roles ask for the user that the gate let in."""

    def ours(parameter: inspect.Parameter) -> inspect.Parameter:
        check = getattr(parameter.default, "dependency", None)
        return parameter.replace(default=Depends(Needs(check.roles))) if isinstance(check, RBAC) else parameter

    return signature.replace(parameters=[ours(parameter) for parameter in signature.parameters.values()])


def _call(endpoint: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    result = endpoint(**arguments)
    return asyncio.run(result) if inspect.iscoroutine(result) else result


def _require_json_objects(arguments: dict[str, Any]) -> None:
    for field in JSON_FIELDS:
        text = arguments.get(field)
        if isinstance(text, str) and text:
            json_object(text, field)


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
