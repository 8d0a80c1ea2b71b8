import numpy as np
import pytest

from slicecast_lab.generated.fields import Raster
from slicecast_lab.generated.shapes import Blob, Organ, random_blob, random_tube

AXIS = np.linspace(-1, 1, 81, dtype=np.float32)
RASTER = Raster(AXIS, AXIS, np.arange(-10, 11, dtype=np.float32))
NO_NOISE = np.zeros(RASTER.shape, dtype=np.float32)
BALL = Blob(centre_xy=(0.1, -0.2), radii_xy=(0.5, 0.5), centre_z=0, radius_z=5)


def inside(blob: Blob):
    return blob.depth(RASTER, NO_NOISE) < 1


def test_blob_has_its_radius_on_the_middle_slice():
    area = inside(BALL)[10].mean() * 4
    assert area == pytest.approx(np.pi * 0.25, rel=0.05)


def test_blob_begins_and_ends():
    np.testing.assert_array_equal(inside(BALL).any(axis=(1, 2)), np.abs(RASTER.z) < 5)


def test_blunt_ends_keep_their_area_longer():
    blunt = Blob(centre_xy=(0, 0), radii_xy=(0.5, 0.5), centre_z=0, radius_z=5, taper=0.1)
    assert inside(blunt)[14].sum() > 2 * inside(BALL)[14].sum()


def test_mirroring_reflects_the_mask():
    blob = random_blob(np.random.default_rng(3), radius=0.3, centre_xy=(0.2, 0.1), centre_z=0, radius_z=20)
    blob = Blob(centre_xy=blob.centre_xy, radii_xy=blob.radii_xy, centre_z=0, radius_z=20, angle=0.7, twist=0.02)
    overlap = inside(blob.mirrored(0.0)) == inside(blob)[:, :, ::-1]
    assert overlap.mean() > 0.999


def test_a_branching_tube_is_one_part_before_and_two_parts_after():
    from scipy import ndimage

    tubes = (random_tube(np.random.default_rng(s), radius=0.15, centre_xy=(0, 0)) for s in range(100))
    tube = next(t for t in tubes if len(t) == 2 and np.hypot(*t[0].split_xy) > 0.02 and t[0].split_z < 0)
    mask = np.logical_or.reduce([inside(blob) for blob in tube])
    assert ndimage.label(mask[0])[1] == 1
    assert ndimage.label(mask[-1])[1] >= 2


def test_a_hollow_organ_has_a_wall_around_its_core():
    labels = np.zeros(RASTER.shape, dtype=np.int16)
    Organ((BALL,), 4, core_label=5, core=0.6).paint(labels, RASTER, NO_NOISE)
    wall, core = (labels[10] == 4).sum(), (labels[10] == 5).sum()
    assert core / (core + wall) == pytest.approx(0.36, abs=0.03)
