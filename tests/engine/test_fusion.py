import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tracking import answer

from slicecast.engine.fusion import FUSED_LIMIT, SliceAnswer, dice, exact_logits, fuse_tracks, label_slice

LEFT, RIGHT = np.zeros((8, 8), bool), np.zeros((8, 8), bool)
LEFT[:, :4], RIGHT[:, 4:] = True, True

logit_maps = hnp.arrays(np.float32, (4, 4), elements=st.floats(-1024, 30, width=32))
answers = st.builds(SliceAnswer, logit_maps, st.floats(0, 1), st.floats(-30, 30))


def test_the_nearer_anchors_track_weighs_more():
    fused = fuse_tracks(
        dict.fromkeys(range(1, 4), answer(LEFT)), dict.fromkeys(range(1, 4), answer(RIGHT)), start=0, stop=4
    )
    assert list(fused) == [1, 2, 3]
    assert [a.logits[0, 0] for a in fused.values()] == pytest.approx([2.5, 0.0, -2.5])
    assert (fused[1].logits > 0).tolist() == LEFT.tolist() and (fused[3].logits > 0).tolist() == RIGHT.tolist()
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


def test_one_lost_track_does_not_outvote_a_sure_one_nearby():
    """SAM 2 writes -1024 for "not here"; unclamped it would win at any distance."""
    absent = SliceAnswer(np.full((8, 8), -1024, np.float32), 0.0, -12.0)
    sure = SliceAnswer(np.where(LEFT, 20, -20).astype(np.float32), 0.9, 12.0)
    fused = fuse_tracks({1: sure}, {1: absent}, start=0, stop=5)[1]
    assert fused.present and ((fused.logits > 0) == LEFT).all()


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
