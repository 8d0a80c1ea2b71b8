"""Errors that reach the web framework become answers with a reason; MONAI Label would say "Internal Server Error"."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from monailabel.interfaces.exception import (
    ImageNotFoundException,
    LabelNotFoundException,
    MONAILabelError,
    MONAILabelException,
)
from starlette.exceptions import HTTPException

from slicecast.errors import SlicecastError
from slicecast.inference.status import http_headers, http_status


async def answer_slicecast_error(request: Request, error: SlicecastError) -> JSONResponse:
    """Answer one of our own errors."""
    return JSONResponse({"detail": plain(str(error))}, status_code=http_status(error), headers=http_headers(error))


async def answer_monailabel_error(request: Request, error: MONAILabelException) -> JSONResponse:
    """Answer an error of MONAI Label, which keeps its text in `msg`."""
    missing = isinstance(error, ImageNotFoundException | LabelNotFoundException)
    status = 404 if missing else 422 if error.error == MONAILabelError.INVALID_INPUT else 500
    return JSONResponse({"detail": plain(str(error.msg))}, status_code=status)


async def answer_http_error(request: Request, error: HTTPException) -> Response:
    """Answer an error that has a status already; some have no body."""
    if error.status_code in (204, 304):
        return Response(status_code=error.status_code, headers=error.headers)
    detail = plain(error.detail) if isinstance(error.detail, str) else error.detail
    return JSONResponse({"detail": detail}, status_code=error.status_code, headers=error.headers)


def plain(text: str) -> str:
    """Return a text that can be sent: half characters, which no encoding can write, are spelled out."""
    return text.encode("utf-8", "backslashreplace").decode()


async def answer_invalid_request(request: Request, error: RequestValidationError) -> JSONResponse:
    """Say in a sentence what does not fit the route's description; `errors` has the places for programs."""
    found = [
        {"where": plain(".".join(map(str, entry["loc"]))[:200]), "what": plain(entry["msg"])}
        for entry in error.errors()[:20]
    ]
    more = f" And {len(found) - 1} more." if len(found) > 1 else ""
    detail = f"The request does not fit: {found[0]['where']}: {found[0]['what']}.{more} See /docs."
    return JSONResponse({"detail": detail, "errors": found}, status_code=422)


HANDLERS: dict[int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]] = {
    SlicecastError: answer_slicecast_error,
    MONAILabelException: answer_monailabel_error,
    RequestValidationError: answer_invalid_request,
    HTTPException: answer_http_error,
}
