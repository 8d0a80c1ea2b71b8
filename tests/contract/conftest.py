"""A server on three phantoms, the first of which has a final label."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import phantom
from labelserver import TestClient, serving, write_studies

from slicecast.volume import read_volume, write_mask

NAMES = ("first", "second", "third")


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three images."""
    return write_studies(tmp_path_factory.mktemp("contract") / "studies", NAMES)


@pytest.fixture(scope="module")
def label(studies: Path) -> bytes:
    """The true label of the image `first`, as a NIfTI file."""
    scan = read_volume(studies / "first.nii.gz")
    return write_mask(studies.parent / "label.nii.gz", phantom().truth, scan.geometry).read_bytes()


@pytest.fixture(scope="module")
def client(studies: Path, label: bytes) -> Iterator[TestClient]:
    """A client of the whole application, with one label saved; nothing is pre-annotated unless asked for."""
    with serving(studies.parent / "app", studies, {"labels": "spleen,liver", "preannotate": "false"}) as client:
        saved = save_label(client, "first", label)
        assert saved.status_code == 200, saved.text
        yield client


def save_label(client: TestClient, image: str, content: bytes, **query: str):
    """Save a label as MONAI Label's client does."""
    params = json.dumps({"label_info": [{"name": "spleen", "idx": 1}]})
    files = {"label": ("label.nii.gz", content), "params": (None, params)}
    return client.put("/datastore/label", params={"image": image, **query}, files=files)
