"""The server's application in this process, on a folder of phantoms."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from labelserver import TestClient, serving, write_studies


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two images, `first` and `second`."""
    return write_studies(tmp_path_factory.mktemp("server") / "studies")


@pytest.fixture(scope="module")
def client(studies: Path) -> Iterator[TestClient]:
    """A client of the whole application; one server for a module's tests."""
    with serving(studies.parent / "app", studies, {"labels": "spleen,liver,kidney"}) as client:
        yield client
