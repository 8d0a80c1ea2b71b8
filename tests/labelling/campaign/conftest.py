"""The store of a folder of studies, as the server opens it."""

import pytest

from slicecast.labelling.store.studies import StudiesDatastore


@pytest.fixture
def open_store(studies):
    return lambda **options: StudiesDatastore(
        str(studies), labels=["ball", "rim"], extensions=["*.nii.gz", "*.nrrd"], **options
    )
