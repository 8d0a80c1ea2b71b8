"""Every error has an HTTP status."""

from collections.abc import Iterator

import pytest

from slicecast import errors
from slicecast.inference.status import STATUS, http_status


def family(error: type[errors.SlicecastError]) -> Iterator[type[errors.SlicecastError]]:
    yield error
    for child in error.__subclasses__():
        yield from family(child)


@pytest.mark.parametrize("error", sorted(set(family(errors.SlicecastError)), key=lambda cls: cls.__name__))
def test_every_error_has_a_status(error):
    assert http_status(error("text")) in set(STATUS.values())


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.VolumeError, 422),
        (errors.UnknownModel, 404),
        (errors.Conflict, 409),
        (errors.SessionClosed, 410),
        (errors.WeightsMissing, 503),
        (errors.Cancelled, 499),
    ],
)
def test_the_nearest_ancestor_decides(error, status):
    assert http_status(error("text")) == status
