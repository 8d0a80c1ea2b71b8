"""The way out for errors: MONAI Label answers 500 without a word to everything but `fastapi.HTTPException`."""

from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import HTTPException

from slicecast.errors import ResourceError, SlicecastError
from slicecast.service.status import http_status

RETRY_AFTER_S = "5"
"""How long a client should wait before it asks a busy server again."""


@contextmanager
def http_errors() -> Iterator[None]:
    """Turn our own errors into an HTTP answer with status and text; let all others pass.

    Raises:
        HTTPException: in place of a SlicecastError.
    """
    try:
        yield
    except SlicecastError as error:
        headers = {"Retry-After": RETRY_AFTER_S} if isinstance(error, ResourceError) else None
        raise HTTPException(http_status(error), detail=str(error), headers=headers) from error
