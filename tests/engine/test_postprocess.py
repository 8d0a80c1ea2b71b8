import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from slicecast.engine.postprocess import fill_holes, keep_connected

volumes = hnp.arrays(bool, (4, 6, 6))


def two_cubes():
    mask = np.zeros((4, 10, 10), bool)
    mask[:2, 1:4, 1:4] = mask[1:, 6:9, 6:9] = True
    return mask


def test_the_part_that_holds_a_seed_stays():
    mask, seeds = two_cubes(), np.zeros((4, 10, 10), bool)
    seeds[0, 2, 2] = True
    kept = keep_connected(mask, seeds)
    assert kept[:2, 1:4, 1:4].all() and kept.sum() == 18


def test_parts_that_touch_by_a_corner_belong_together():
    mask, seeds = np.eye(4, dtype=bool)[:, None, :] & np.eye(4, dtype=bool)[:, :, None], np.zeros((4, 4, 4), bool)
    seeds[0, 0, 0] = True
    assert keep_connected(mask, seeds).sum() == 4


@pytest.mark.parametrize("seed", [None, (0, 9, 9)])
def test_without_a_seed_in_it_everything_stays(seed):
    seeds = np.zeros((4, 10, 10), bool)
    if seed:
        seeds[seed] = True
    assert (keep_connected(two_cubes(), seeds) == two_cubes()).all()


@given(volumes, volumes)
def test_keeping_never_adds_and_never_loses_a_seed(mask, seeds):
    kept = keep_connected(mask, seeds)
    assert not (kept & ~mask).any()
    assert (kept & seeds == mask & seeds).all()
    assert (keep_connected(kept, seeds) == kept).all()


def ring(hole):
    mask = np.zeros((12, 12), bool)
    mask[2:10, 2:10] = True
    mask[4 : 4 + hole, 4:6] = False
    return mask


@pytest.mark.parametrize(("hole", "filled"), [(1, True), (2, True), (3, False)])
def test_only_small_holes_are_filled(hole, filled):
    out = fill_holes(ring(hole), up_to_px=4)
    assert bool(out[4, 4]) == filled and out.sum() == (64 if filled else 64 - 2 * hole)


def test_nothing_is_filled_when_switched_off():
    mask = ring(1)
    assert fill_holes(mask, up_to_px=0) is mask


@given(hnp.arrays(bool, (8, 8)), st.integers(0, 20))
def test_filling_never_removes_and_leaves_the_outside(mask, area):
    filled = fill_holes(mask, up_to_px=area)
    assert not (mask & ~filled).any()
    assert (filled[0] == mask[0]).all() and (filled[:, -1] == mask[:, -1]).all()
    assert (fill_holes(filled, up_to_px=area) == filled).all()
