"""Fixtures of a small store."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from labelserver import write_studies

from slicecast.labelling.store.datastore import SafeDatastore

NOON = datetime(2024, 8, 5, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """A folder of two images, `first` and `second`."""
    return write_studies(tmp_path / "studies")


@pytest.fixture
def open_store(studies: Path):
    """Open the studies, as often as a test likes."""
    return lambda **options: SafeDatastore(
        str(studies), extensions=["*.nii.gz", "*.nrrd"], clock=lambda: NOON, **options
    )


@pytest.fixture
def store(open_store) -> SafeDatastore:
    """The opened studies."""
    return open_store()
