"""Errors that reach the framework have a reason."""

import pytest
from fastapi import FastAPI
from labelserver import TestClient
from monailabel.interfaces.exception import ImageNotFoundException, MONAILabelError, MONAILabelException

from slicecast.errors import QueueFull, VolumeError
from slicecast.server.errors import HANDLERS


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
