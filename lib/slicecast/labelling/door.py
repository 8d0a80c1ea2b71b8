"""The way out for errors: MONAI Label answers 500 without a word to everything but `fastapi.HTTPException`."""

from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import HTTPException

from slicecast.errors import SlicecastError
from slicecast.inference.status import http_headers, http_status


@contextmanager
def http_errors() -> Iterator[None]:
    """Turn our own errors into an HTTP answer with status and text; let all others pass.

    Raises:
        HTTPException: in place of a SlicecastError.
    """
    try:
        yield
    except SlicecastError as error:
        raise HTTPException(http_status(error), detail=str(error), headers=http_headers(error)) from error
