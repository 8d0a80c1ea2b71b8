"""Our errors leave with a status and their text."""

import pytest
from fastapi import HTTPException

from slicecast import errors
from slicecast.inference.status import RETRY_AFTER_S
from slicecast.labelling.door import http_errors


@pytest.mark.parametrize(
    ("error", "status"), [(errors.PromptError, 422), (errors.UnknownImage, 404), (errors.Conflict, 409)]
)
def test_status_and_text(error, status):
    with pytest.raises(HTTPException) as caught, http_errors():
        raise error("what was wrong, the value, the remedy")
    assert (caught.value.status_code, caught.value.detail) == (status, "what was wrong, the value, the remedy")
    assert not caught.value.headers


def test_a_busy_server_says_when_to_come_back():
    with pytest.raises(HTTPException) as caught, http_errors():
        raise errors.QueueFull("full")
    assert (caught.value.status_code, caught.value.headers) == (503, {"Retry-After": RETRY_AFTER_S})


def test_other_errors_pass():
    with pytest.raises(KeyError), http_errors():
        raise KeyError("a bug")
