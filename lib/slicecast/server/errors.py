"""Errors become HTTP answers here: a status, a sentence that names the remedy, and how OpenAPI describes both.

The library raises its own errors (`slicecast.errors`), routes those and the ones below. The only other place that
knows HTTP statuses is the outermost method of a MONAI Label task, which MONAI Label calls without these handlers.
"""

import logging
import sqlite3
from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
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
from pydantic import BaseModel, Field
from sqlalchemy.exc import DatabaseError
from starlette.exceptions import HTTPException

from slicecast.databases import is_disk_full
from slicecast.errors import SlicecastError

logger = logging.getLogger(__name__)

Described = dict[int | str, dict[str, Any]]


class Forbidden(SlicecastError):
    """The caller's role, or the page that sent the request, does not allow it."""

    status = 403


class NotLoggedIn(SlicecastError):
    """A name and password do not belong together."""

    status = 401
    headers: Mapping[str, str] = MappingProxyType({"WWW-Authenticate": "Bearer"})


class TooManyLogins(SlicecastError):
    """Too many wrong logins.

    Args:
        wait_s: seconds until the next try.
    """

    status = 429

    def __init__(self, wait_s: int) -> None:
        super().__init__(f"Too many wrong logins. Wait {wait_s} seconds.")
        self.headers = {"Retry-After": str(wait_s)}


class NotAcceptable(SlicecastError):
    """The client does not accept the only type of content that there is."""

    status = 406


class DicomServerFailed(SlicecastError):
    """The DICOM server cannot be reached, refused our credentials, or sent what cannot be read."""

    status = 502


class DicomServerSilent(SlicecastError):
    """The DICOM server did not answer in time."""

    status = 504


class BodyTooLarge(HTTPException):
    """A body grew beyond its limit while it was read; FastAPI would answer 400 to any error but its own."""

    def __init__(self, detail: str) -> None:
        super().__init__(413, detail=detail)


DISK_FULL = "The server's disk is full, so nothing was saved. Tell the administrator, and try again."

LONG_FIELD = "Part exceeded maximum size"
"""How Starlette begins to say, with 400, that a form's field without a file is larger than 1 MiB."""


async def answer_slicecast_error(request: Request, error: SlicecastError) -> JSONResponse:
    """Answer one of our own errors; the library's lead to their line of docs/errors.md, found by its text."""
    name = next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == SlicecastError.__module__)
    place = str(error.status) if name == SlicecastError.__name__ else f":~:text={name}"
    return _answer(error.status, {"detail": plain(str(error))}, {**help_link(place), **error.headers})


def help_link(place: str) -> dict[str, str]:
    """Return the header that leads to a place of docs/errors.md; every status has a paragraph there."""
    return {"Link": f'</manual/errors/#{place}>; rel="help"'}


def _answer(status: int, content: dict[str, Any], headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse(content, status_code=status, headers={**help_link(str(status)), **(headers or {})})


async def answer_monailabel_error(request: Request, error: MONAILabelException) -> JSONResponse:
    """Answer an error of MONAI Label, which keeps its text in `msg`."""
    missing = isinstance(error, ImageNotFoundException | LabelNotFoundException)
    return problem(404 if missing else 422 if error.error == MONAILabelError.INVALID_INPUT else 500, str(error.msg))


async def answer_http_error(request: Request, error: HTTPException) -> Response:
    """Answer an error that has a status already; some have no body."""
    if error.status_code in (204, 304):
        return Response(status_code=error.status_code, headers=error.headers)
    if str(error.detail).startswith(LONG_FIELD):
        return problem(413, "A field of the form is larger than 1 MiB. Send less at a time.")
    detail = plain(error.detail) if isinstance(error.detail, str) else error.detail
    return _answer(error.status_code, {"detail": detail}, error.headers)


async def answer_invalid_request(request: Request, error: RequestValidationError) -> JSONResponse:
    """Say in a sentence what does not fit the route's description; `errors` has the places for programs."""
    found = [
        {"where": plain(".".join(map(str, entry["loc"]))[:200]), "what": plain(entry["msg"])}
        for entry in error.errors()[:20]
    ]
    more = f" And {len(found) - 1} more." if len(found) > 1 else ""
    detail = f"The request does not fit: {found[0]['where']}: {found[0]['what']}.{more} See /docs."
    return _answer(422, {"detail": detail, "errors": found})


async def answer_disk_full(request: Request, error: Exception) -> JSONResponse:
    """Answer that the disk is full; any other error of the system is a fault of ours."""
    if not is_disk_full(error):
        raise error
    logger.error("The disk is full: %s", error)
    return problem(507, DISK_FULL)


HANDLERS: dict[int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]] = {
    SlicecastError: answer_slicecast_error,
    MONAILabelException: answer_monailabel_error,
    RequestValidationError: answer_invalid_request,
    HTTPException: answer_http_error,
    OSError: answer_disk_full,
    sqlite3.Error: answer_disk_full,
    DatabaseError: answer_disk_full,
}


def problem(status: int, detail: str, *, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Answer with a sentence, and the way to the documentation."""
    return _answer(status, {"detail": plain(detail)}, headers)


def plain(text: str) -> str:
    """Return a text that can be sent: lone surrogates, which no encoding can write, are spelled out."""
    return text.encode("utf-8", "backslashreplace").decode()


class Misfit(BaseModel):
    """One place where a request does not fit the route's description."""

    where: str = Field(description="Such as body.prompts.0.ijk")
    what: str


class Problem(BaseModel):
    """What was wrong, and the remedy."""

    detail: str
    errors: list[Misfit] | None = Field(None, description="For programs, where a request does not fit")


def problems(why: Mapping[int, str], *codes: int) -> Described:
    """Describe errors for OpenAPI.

    Args:
        why: what each status means.
        codes: those that can come; default: all.
    """
    return {code: {"model": Problem, "description": why[code]} for code in codes or why}


COMMON = problems(
    {
        401: "A login is needed",
        403: "Your role, your address or the page that you came from may not do this",
        404: "There is no such image, label, model, study or case",
        413: "The request is too large",
        422: "The request cannot be used; the detail says why",
    }
)
"""What most routes can answer."""


def as_json(described: dict[str, Any]) -> dict[str, Any]:
    """Correct an OpenAPI description in place: FastAPI gives errors the media type of the route's other answers."""
    operations = [operation for ways in described["paths"].values() for operation in ways.values()]
    for code, answer in [item for operation in operations for item in operation["responses"].items()]:
        if code >= "400" and answer.get("content"):
            answer["content"] = {"application/json": next(iter(answer["content"].values()))}
    return described
