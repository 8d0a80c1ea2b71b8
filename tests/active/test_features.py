"""The formulas, by hand and by law."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from slicecast.active.features import cycle_error, disagreement, entropy, flaw_of, object_entropy
from slicecast.errors import InputError

MASKS = arrays(np.bool_, (3, 2, 3, 3))


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


def test_object_entropy_by_hand():
    assert object_entropy(np.zeros(5)) == pytest.approx(1.0)
    assert object_entropy(np.array([30.0, -30.0])) == pytest.approx(0.0, abs=1e-9)
    assert object_entropy(np.array([])) == 0.0


def test_a_cycle_that_comes_back_has_no_error():
    mask, empty = np.ones((3, 3), bool), np.zeros((3, 3), bool)
    assert cycle_error([mask, mask], [mask, mask]) == 0.0
    assert cycle_error([mask, empty], [mask, mask]) == 0.5


GRID = np.indices((12, 20, 24)).sum(axis=0).astype(np.float32)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((8, 8, 8), np.int16), "constant"),
        (np.where(GRID > 40, np.nan, GRID), "no numbers"),
        (np.random.default_rng(0).normal(size=(12, 20, 24)), "neighbouring voxels are unrelated"),
    ],
)
def test_what_is_wrong_is_said(array, said):
    assert said in flaw_of(array)


def test_a_scan_with_noise_is_fine():
    noisy = GRID + np.random.default_rng(0).normal(size=GRID.shape) * GRID.std()
    assert flaw_of(noisy) == "" and flaw_of(GRID.astype(np.int16)) == ""
