import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tracking import answer

from slicecast.engine.fusion import SliceAnswer
from slicecast.engine.postprocess import fill_holes, keep_connected, probability_of_presence, slice_confidence

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


HALF = np.zeros((8, 8), bool)
HALF[:4] = True

scores = st.floats(-1e4, 1e4)


@given(st.booleans(), scores, st.floats(-1, 2), st.floats(0, 1))
def test_confidence_lies_between_0_and_1(shown, score, iou, agreement):
    seen = answer(HALF if shown else None, object_score=score, predicted_iou=iou, agreement=agreement)
    assert 0.0 <= slice_confidence(seen) <= 1.0


@given(st.floats(0.1, 10), st.floats(0.1, 10))
def test_a_higher_object_score_is_surer_that_it_is_there_and_less_sure_that_it_is_not(low, more):
    there = [slice_confidence(answer(HALF, object_score=s)) for s in (low, low + more)]
    away = [slice_confidence(answer(object_score=s)) for s in (-low - more, -low)]
    assert there[0] < there[1] and away[0] > away[1]


def test_tracks_that_disagree_lower_the_confidence():
    assert slice_confidence(answer(HALF, agreement=0.5)) == pytest.approx(slice_confidence(answer(HALF)) / 2)


def test_a_lost_object_is_not_certain_merely_because_its_logits_are_extreme():
    lost = SliceAnswer(np.full((8, 8), -1024, np.float32), 0.9, object_score=-0.1)
    assert slice_confidence(lost) < 0.6


def test_presence_is_the_sigmoid_of_the_object_score():
    assert probability_of_presence(answer(HALF, object_score=0.0)) == pytest.approx(0.5)
    assert probability_of_presence(answer(HALF, object_score=-1e6)) < 1e-20
