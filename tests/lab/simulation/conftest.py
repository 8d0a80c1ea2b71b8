"""A folder of phantoms with their truth, divided into pool and test, and a service without weights."""

import json
from pathlib import Path

import pytest
from builders import ball, scan, tube

from slicecast.inference.segment import SegmentService
from slicecast.volume import write_mask, write_volume
from slicecast_lab.evaluation.cases import CaseFiles, find_cases, read_case
from slicecast_lab.simulation.annotator import PERFECT, RobotSession
from slicecast_lab.simulation.fake import FakePredictor

POOL, TEST = 5, 2


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """Balls and tubes of several sizes."""
    root = tmp_path_factory.mktemp("set")
    for part in ("images", "labels"):
        (root / part).mkdir()
    names = [f"p{n}_a" for n in range(POOL + TEST)]
    for n, name in enumerate(names):
        wide = 2.5 + 0.4 * n
        truth = ball(radius=wide + 1) if n % 2 else tube(start_ijk=(6, 10, 3), end_ijk=(17, 9, 12), radius=wide)
        volume = scan(truth, seed=n)
        write_volume(root / "images" / f"{name}.nii.gz", volume)
        write_mask(root / "labels" / f"{name}.nii.gz", truth.astype("uint8"), volume.geometry)
    (root / "split.json").write_text(json.dumps({"pool": names[:POOL], "test": names[POOL:]}))
    return root


@pytest.fixture(scope="session")
def cases(folder) -> list[CaseFiles]:
    return find_cases(folder, ())


@pytest.fixture
def service() -> SegmentService:
    return SegmentService(predictor=FakePredictor(image_size=64))


@pytest.fixture
def session(cases, service) -> RobotSession:
    """A ball on the desk of a perfect robot that paints."""
    return RobotSession(read_case(cases[1]), service, PERFECT)
