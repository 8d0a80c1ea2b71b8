"""The formulas, by hand and by law."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from slicecast.active.uncertainty import (
    bald_roi,
    cycle_error,
    disagreement,
    entropy,
    entropy_roi,
    object_entropy,
    overlap,
)
from slicecast.errors import InputError

PROBABILITIES = arrays(np.float32, (3, 3, 4, 4), elements=st.floats(0, 1, width=32))
MASKS = arrays(np.bool_, (3, 2, 3, 3))


def test_overlap_by_hand():
    empty, one, two = np.zeros(4, bool), np.array([1, 0, 0, 0], bool), np.array([1, 1, 0, 0], bool)
    assert overlap(empty, empty) == 1.0 and overlap(empty, one) == 0.0
    assert overlap(one, two) == pytest.approx(2 / 3)


@given(MASKS)
def test_disagreement_is_a_share_that_equal_views_make_zero(masks):
    assert 0.0 <= disagreement(masks) <= 1.0
    assert disagreement([masks[0]] * 3) == 0.0


def test_disagreement_of_one_lost_view():
    there, gone = np.ones((2, 2, 2), bool), np.zeros((2, 2, 2), bool)
    assert disagreement([there, there, gone]) == pytest.approx(2 / 3)
    with pytest.raises(InputError, match="two or more"):
        disagreement([there])


def test_entropy_has_both_terms():
    assert entropy(np.array([0.5]))[0] == pytest.approx(1.0)
    assert entropy(np.array([0.37]))[0] == pytest.approx(entropy(np.array([0.63]))[0])
    assert entropy(np.array([0.0, 1.0])) == pytest.approx([0.0, 0.0], abs=1e-9)


@settings(deadline=None)
@given(PROBABILITIES)
def test_what_views_differ_by_is_at_most_the_whole_entropy(probabilities):
    assert 0.0 <= bald_roi(probabilities) <= entropy_roi(probabilities) + 1e-6 <= 1.0 + 2e-6


def test_equal_views_differ_by_nothing():
    view = np.random.default_rng(0).random((1, 3, 4, 4)).astype(np.float32)
    assert bald_roi(np.repeat(view, 4, axis=0)) == pytest.approx(0.0, abs=1e-6)
    assert bald_roi(np.stack([np.zeros((3, 4, 4)), np.ones((3, 4, 4))])) == pytest.approx(1.0)


def test_background_does_not_dilute_the_entropy():
    small = np.zeros((2, 12, 12, 12), np.float32)
    small[:, 4:8, 4:8, 4:8] = 0.6
    large = np.pad(small, ((0, 0), (20, 20), (20, 20), (20, 20)))
    assert entropy_roi(large) == pytest.approx(entropy_roi(small))


def test_a_lost_object_shows_in_the_object_score_only():
    lost = np.zeros((3, 4, 4, 4), np.float32)
    assert entropy_roi(lost) == pytest.approx(0.0, abs=1e-6)
    assert object_entropy(np.zeros(5)) == pytest.approx(1.0)
    assert object_entropy(np.array([30.0, -30.0])) == pytest.approx(0.0, abs=1e-9)
    assert object_entropy(np.array([])) == 0.0


def test_a_cycle_that_comes_back_has_no_error():
    mask, empty = np.ones((3, 3), bool), np.zeros((3, 3), bool)
    assert cycle_error([mask, mask], [mask, mask]) == 0.0
    assert cycle_error([mask, empty], [mask, mask]) == 0.5
