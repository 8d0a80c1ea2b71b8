"""A server of its own, started as a user does."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from labelserver import copy_app, write_studies

from slicecast.demo.server_process import RunningServer, serving


@pytest.fixture(autouse=True)
def _collect_sockets() -> Iterator[None]:
    """MONAI Label's client never closes its sockets; let them go within the test that ignores that warning."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `studies` and `app`."""
    folder = tmp_path_factory.mktemp("e2e")
    write_studies(folder / "studies", ("first", "second", "third"))
    copy_app(folder / "app")
    return folder


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[RunningServer]:
    """`slicecast serve` on those studies."""
    options = ["--labels", "ball,other"]
    with serving(place / "studies", app=place / "app", log=place / "server.log", options=options) as server:
        yield server
