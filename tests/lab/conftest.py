"""A folder of phantoms with their truth, and a service without weights."""

import json
from pathlib import Path

import pytest
from builders import phantom

from slicecast.inference.segment import SegmentService
from slicecast.volume import write_mask, write_volume
from slicecast_lab.evaluation.cases import CaseFiles, TruthCase, find_cases, read_case
from slicecast_lab.simulation.fake import FakePredictor

KINDS = ("anisotropic", "flipped", "sphere")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark all that lies here, before marks select what runs."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.lab)


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """Phantoms as images/ and labels/, with a split; the object is label 1 in its upper half and 2 below."""
    root = tmp_path_factory.mktemp("phantoms")
    (root / "images").mkdir()
    (root / "labels").mkdir()
    for kind in KINDS:
        scan, truth = phantom(kind)
        label = truth.astype("uint8")
        label[: len(label) // 2] *= 2
        write_volume(root / "images" / f"{kind}.nii.gz", scan)
        write_mask(root / "labels" / f"{kind}.nii.gz", label, scan.geometry)
    (root / "split.json").write_text(json.dumps({"test": ["sphere", "flipped"]}))
    return root


@pytest.fixture(scope="session")
def cases(folder) -> list[CaseFiles]:
    return find_cases(folder, (1, 2))


@pytest.fixture(params=KINDS)
def case(request, cases) -> TruthCase:
    """Each phantom in turn."""
    return read_case(next(files for files in cases if files.id == request.param))


@pytest.fixture
def service() -> SegmentService:
    return SegmentService(predictor=FakePredictor(image_size=64))
