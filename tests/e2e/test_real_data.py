"""The bundled model on real volumes: the same scan in another orientation gives the same mask."""

import numpy as np
import pytest

from slicecast.config import data_dir
from slicecast.inference.segment import SegmentRequest, SegmentService
from slicecast.prompts import ObjectPrompts, Point, PromptSet
from slicecast.volume import Reorientation, read_volume

pytestmark = pytest.mark.data

FOLDER = data_dir() / "awkward" / "derived_hippocampus"
ORIGINAL = data_dir() / "hippocampus" / "images" / "hippocampus_001.nii.gz"


@pytest.fixture(scope="module")
def service():
    if not FOLDER.is_dir():
        pytest.skip(f"no real volumes in {data_dir()}; set SLICECAST_DATA")
    return SegmentService(model="sam2_nano")


def click_at(path, world_mm):
    """Return the voxel of a file that holds a place in the world."""
    return tuple(int(n) for n in np.rint(read_volume(path).geometry.world_to_index(world_mm)[0]))


def segment(service, path, world_mm):
    point = Point(click_at(path, world_mm))
    return service.segment(SegmentRequest(path, PromptSet((ObjectPrompts("hippocampus", points=(point,)),))))


@pytest.fixture(scope="module")
def original(service):
    truth = read_volume(ORIGINAL.parent.parent / "labels" / ORIGINAL.name)
    k, j, i = (int(np.median(places)) for places in np.nonzero(truth.array))
    world_mm = truth.geometry.index_to_world([[i, j, k]])
    return segment(service, ORIGINAL, world_mm), world_mm


@pytest.mark.parametrize("code", ["LPI", "SRA", "PIR"])
def test_another_orientation_gives_the_same_mask(service, original, code):
    expected, world_mm = original
    found = segment(service, FOLDER / f"img_{code}.nii.gz", world_mm)
    canonical = Reorientation.of(found.geometry).to_canonical_array(found.mask)
    assert expected.mask.any()
    assert np.array_equal(canonical, Reorientation.of(expected.geometry).to_canonical_array(expected.mask))


def test_an_oblique_scan_opens_where_it_lies(service):
    path = FOLDER / "img_oblique.nii.gz"
    image = read_volume(path)
    centre = (np.array([image.geometry.size_ijk]) - 1) // 2
    found = segment(service, path, image.geometry.index_to_world(centre))
    assert not found.geometry.differences(image.geometry)
    i, j, k = centre[0]
    assert found.mask.any() and found.mask.shape == image.array.shape
    assert found.mask[k, j, i] == 1
