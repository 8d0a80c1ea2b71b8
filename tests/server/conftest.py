"""The server's application in this process, on a folder of phantoms."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from labelserver import TestClient, copy_app, monailabel_settings, write_studies

from slicecast.server.app import create_app


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two images, `first` and `second`."""
    return write_studies(tmp_path_factory.mktemp("server") / "studies")


@pytest.fixture(scope="module")
def client(studies: Path) -> Iterator[TestClient]:
    """A client of the whole application; one server for a module's tests."""
    app_dir = copy_app(studies.parent / "app")
    chosen = {
        "MONAI_LABEL_APP_DIR": str(app_dir),
        "MONAI_LABEL_STUDIES": str(studies),
        "MONAI_LABEL_APP_CONF": {"labels": "spleen,liver,kidney"},
        "MONAI_LABEL_DATASTORE_AUTO_RELOAD": False,
    }
    with monailabel_settings(**chosen), TestClient(create_app(), raise_server_exceptions=False) as client:
        yield client
