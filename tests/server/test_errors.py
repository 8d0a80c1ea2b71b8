"""Errors that reach the framework have a reason."""

import errno
import sqlite3

import pytest
from fastapi import FastAPI
from labelserver import TestClient
from monailabel.interfaces.exception import ImageNotFoundException, MONAILabelError, MONAILabelException
from sqlalchemy.exc import OperationalError

from slicecast.config import project_dir
from slicecast.errors import QueueFull, SlicecastError, TooMany, VolumeError
from slicecast.server.errors import HANDLERS, TooManyLogins


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (VolumeError("said"), 422),
        (QueueFull("said"), 503),
        (ImageNotFoundException("said"), 404),
        (MONAILabelException(MONAILabelError.INVALID_INPUT, "said"), 422),
        (MONAILabelException(MONAILabelError.SERVER_ERROR, "said"), 500),
    ],
)
def test_status_and_reason(error, status):
    app = FastAPI(exception_handlers=HANDLERS)

    @app.get("/")
    def fail() -> None:
        raise error

    response = TestClient(app).get("/")
    assert (response.status_code, response.json()) == (status, {"detail": "said"})


def kinds(kind=SlicecastError):
    """Every class of error of the program."""
    return [kind, *(one for child in kind.__subclasses__() for one in kinds(child))]


@pytest.mark.parametrize("kind", [one for one in kinds() if one.__module__.startswith("slicecast.")])
def test_every_error_leads_to_its_line_or_the_paragraph_of_its_status(kind):
    app = FastAPI(exception_handlers=HANDLERS)
    error = kind(7) if kind is TooManyLogins else kind("said")

    @app.get("/")
    def fail() -> None:
        raise error

    place = TestClient(app).get("/").headers["link"].partition("#")[2].partition(">")[0]
    page = (project_dir("docs") / "errors.md").read_text(encoding="utf-8")
    text = place.removeprefix(":~:text=")
    assert f"| `{text}` |" in page if text != place else f"\n### {place}\n" in page


@pytest.mark.parametrize("error", [QueueFull("said"), TooMany("said")])
def test_whoever_should_come_back_is_told_when(error):
    app = FastAPI(exception_handlers=HANDLERS)

    @app.get("/")
    def fail() -> None:
        raise error

    assert TestClient(app).get("/").headers["retry-after"] == "5"


def test_a_request_that_does_not_fit_gets_a_sentence():
    app = FastAPI(exception_handlers=HANDLERS)

    @app.get("/")
    def add(a: int, b: int) -> int:
        return a + b

    answer = TestClient(app).get("/", params={"a": "x"})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("The request does not fit: query.a: Input should be a valid integer")
    assert "And 1 more." in answer.json()["detail"]
    assert [entry["where"] for entry in answer.json()["errors"]] == ["query.a", "query.b"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 507),
        (sqlite3.OperationalError("database or disk is full"), 507),
        (OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full")), 507),
        (OSError(errno.EIO, "Input/output error"), 500),
        (sqlite3.OperationalError("database is locked"), 500),
    ],
)
def test_a_full_disk_is_507(error, status):
    app = FastAPI(exception_handlers=HANDLERS)

    @app.put("/")
    def save():
        raise error

    answer = TestClient(app, raise_server_exceptions=False).put("/")
    assert answer.status_code == status
    if status == 507:
        assert "disk is full" in answer.json()["detail"] and "/" not in answer.json()["detail"]
