"""Metrics against values worked out by hand."""

import numpy as np
import pytest

from slicecast.volume.metrics import dice, surface


def cube(shift: int = 0) -> np.ndarray:
    mask = np.zeros((20, 24, 28), dtype=bool)
    mask[5:15, 5:15, 5 + shift : 15 + shift] = True
    return mask


def test_dice_of_cubes():
    assert dice(cube(), cube()) == 1 and dice(cube(), ~cube()) == 0
    assert dice(cube(), cube(shift=5)) == pytest.approx(0.5)
    assert dice(np.zeros(3, bool), np.zeros(3, bool)) == 1


def test_surfaces_that_agree():
    found = surface(cube(), cube(), spacing_kji=(1, 1, 1))
    assert found.nsd == pytest.approx(1) and found.hd95 == 0


def test_surface_distances_count_in_the_given_unit():
    assert surface(cube(), cube(shift=3), spacing_kji=(1, 1, 1)).hd95 == pytest.approx(3)
    assert surface(cube(), cube(shift=3), spacing_kji=(1, 1, 2)).hd95 == pytest.approx(6)


def test_nsd_is_the_share_of_surface_within_the_tolerance():
    """Of a cube moved by 3 along i: of four sides 9 of 10 columns, of the inner end all but the middle 6 x 6."""
    near = surface(cube(), cube(shift=3), spacing_kji=(1, 1, 1)).nsd
    assert near == pytest.approx((4 * 90 + 64) / 600, abs=0.07)  # MONAI counts surface elements between voxels
    assert surface(cube(), cube(shift=3), spacing_kji=(1, 1, 1), tolerance=3).nsd == pytest.approx(1)
    assert surface(cube(), cube(shift=1), spacing_kji=(1, 1, 5)).nsd < 1


def test_masks_at_the_volumes_border_have_a_surface_there():
    whole = np.ones((4, 5, 6), dtype=bool)
    assert surface(whole, whole, spacing_kji=(1, 1, 1)).nsd == pytest.approx(1)


def test_an_empty_answer_has_no_distance():
    empty = np.zeros_like(cube())
    assert surface(empty, cube(), spacing_kji=(1, 1, 1)).nsd == 0
    assert surface(empty, cube(), spacing_kji=(1, 1, 1)).hd95 is None
    assert surface(empty, empty, spacing_kji=(1, 1, 1)).nsd == 1
