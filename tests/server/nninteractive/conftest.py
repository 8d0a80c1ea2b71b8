"""A server for the unmodified client."""

from collections.abc import Callable, Iterator

import pytest
from labelserver import write_studies
from nnclient import Session, running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, object]]:
    """The whole application on two phantoms, `first` and `second`: its address, and itself."""
    folder = tmp_path_factory.mktemp("nninteractive")
    with running(folder / "app", write_studies(folder / "studies")) as found:
        yield found


@pytest.fixture
def connect(server: tuple[str, object]) -> Iterator[Callable[..., Session]]:
    """Open clients; all are closed in the end."""
    opened: list[Session] = []

    def new(path: str = "", **options) -> Session:
        opened.append(Session(f"{server[0]}/nninteractive{path}", **options))
        return opened[-1]

    yield new
    for session in opened:
        session.close()
