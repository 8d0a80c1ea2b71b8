import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tracking import answer

from slicecast.engine.fusion import (
    FUSED_LIMIT,
    PRIOR_LIMIT_PX,
    PRIOR_LOGIT,
    SliceAnswer,
    dice,
    exact_logits,
    fuse_tracks,
    interpolate_shape,
    label_slice,
)

LEFT, RIGHT = np.zeros((8, 8), bool), np.zeros((8, 8), bool)
LEFT[:, :4], RIGHT[:, 4:] = True, True

logit_maps = hnp.arrays(np.float32, (4, 4), elements=st.floats(-1024, 30, width=32))
answers = st.builds(SliceAnswer, logit_maps, st.floats(0, 1), st.floats(-30, 30))


def test_the_nearer_anchors_track_leads():
    fused = fuse_tracks(
        dict.fromkeys(range(1, 4), answer(LEFT)), dict.fromkeys(range(1, 4), answer(RIGHT)), start=0, stop=4
    )
    assert list(fused) == [1, 2, 3]
    assert [a.logits[0, 0] for a in fused.values()] == pytest.approx([5.0, 5.0, 2.0])
    assert [a.logits[0, -1] for a in fused.values()] == pytest.approx([2.0, 5.0, 5.0])
    assert all(a.agreement == 0.0 for a in fused.values())


def test_a_slice_that_one_track_reached_is_that_tracks():
    up, down = answer(LEFT), answer(RIGHT)
    fused = fuse_tracks({1: up, 2: up}, {4: down}, start=0, stop=5)
    assert fused == {1: up, 2: up, 4: down}


def test_tracks_that_agree_change_nothing():
    fused = fuse_tracks({1: answer(LEFT)}, {1: answer(LEFT)}, start=0, stop=2)[1]
    assert (fused.logits == answer(LEFT).logits).all() and fused.agreement == 1.0 and not fused.prompted


@given(answers, answers, st.integers(1, 9))
def test_fusing_is_the_same_from_either_end(first, second, number):
    one = fuse_tracks({number: first}, {number: second}, start=0, stop=10)[number]
    other = fuse_tracks({10 - number: second}, {10 - number: first}, start=0, stop=10)[10 - number]
    assert one.logits == pytest.approx(other.logits, abs=1e-4)
    assert one.object_score == pytest.approx(other.object_score, abs=1e-4) and one.agreement == other.agreement
    assert np.abs(one.logits).max() <= FUSED_LIMIT and one.logits.dtype == np.float32


GONE = SliceAnswer(np.full((8, 8), -1024, np.float32), 0.0, -12.0)
SURE = SliceAnswer(np.where(LEFT, 20, -20).astype(np.float32), 0.9, 12.0)


@pytest.mark.parametrize("number", range(1, 10))
def test_an_absent_track_never_erases_a_present_one(number):
    """Also where it stands beside its own anchor: what it has lost there, the other track still has."""
    for up, down in ((SURE, GONE), (GONE, SURE)):
        fused = fuse_tracks({number: up}, {number: down}, start=0, stop=10)[number]
        assert fused.present and ((fused.logits > 0) == LEFT).all() and fused.agreement == 0.0


def test_what_both_tracks_call_absent_is_absent():
    assert not fuse_tracks({1: GONE}, {1: GONE}, start=0, stop=2)[1].present


def test_a_mask_that_does_not_fit_its_anchor_counts_as_absent():
    wrong = SliceAnswer(np.full((8, 8), 9, np.float32), 0.9, 5.0, fits=False)
    assert ((fuse_tracks({1: wrong}, {1: SURE}, start=0, stop=2)[1].logits > 0) == LEFT).all()


def square(x, side=6):
    mask = np.zeros((24, 48), bool)
    mask[8 : 8 + side, x : x + side] = True
    return mask


@pytest.mark.parametrize("weight", [0.0, 0.25, 0.5, 1.0])
def test_a_shape_between_two_slices_moves_and_grows(weight):
    found = interpolate_shape(square(4, 6), square(28, 10), weight=weight).mask
    columns = np.nonzero(found)[1]
    assert columns.mean() == pytest.approx(6.5 + weight * 26, abs=0.5)
    assert np.sqrt(found.sum()) == pytest.approx(6 + 4 * weight, abs=0.7)


@given(st.integers(2, 30), st.integers(2, 30), st.floats(0, 1))
def test_interpolation_is_the_same_from_either_end(first, second, weight):
    one = interpolate_shape(square(first), square(second), weight=weight, spacing_yx=(2.0, 1.0))
    other = interpolate_shape(square(second), square(first), weight=1 - weight, spacing_yx=(2.0, 1.0))
    assert one.distance == pytest.approx(other.distance, abs=1e-4)
    assert one.alike == pytest.approx(other.alike)


def test_a_shape_says_the_less_the_farther_away_the_less_alike_and_the_less_trusted():
    same, other = (interpolate_shape(square(10, 6), square(20, side), weight=0.5) for side in (6, 16))
    said = [np.abs(same.logits(slices_away=n, trust=trust)).max() for n, trust in ((1, 1.0), (2, 1.0), (2, 0.5))]
    assert PRIOR_LOGIT * PRIOR_LIMIT_PX >= said[0] == 2 * said[1] == 4 * said[2] > 0
    assert same.alike == 1 and other.alike < 0.5
    assert not same.logits(slices_away=1, trust=0.0).any()


@pytest.mark.parametrize(
    ("first", "second", "value"),
    [(LEFT, LEFT, 1.0), (LEFT, RIGHT, 0.0), (LEFT, LEFT | RIGHT, 2 / 3), (LEFT & RIGHT, LEFT & RIGHT, 1.0)],
)
def test_dice_of_known_masks(first, second, value):
    assert dice(first, second) == pytest.approx(value)


@given(st.lists(logit_maps, min_size=1, max_size=5))
def test_each_pixel_belongs_to_the_strongest_object_or_to_none(logits):
    labels, stack = label_slice(logits), np.stack(logits)
    assert labels.dtype == np.uint8
    assert ((labels > 0) == (stack > 0).any(axis=0)).all()
    chosen = np.take_along_axis(stack, np.maximum(labels, 1).astype(int)[None] - 1, axis=0)[0]
    assert (chosen == stack.max(axis=0))[labels > 0].all()


@given(logit_maps, hnp.arrays(bool, (4, 4)))
def test_nobody_outvotes_a_painted_slice(other, mask):
    labels = label_slice([other, exact_logits(mask)])
    assert ((labels == 2) == mask).all()
