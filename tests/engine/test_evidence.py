import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slicecast.engine.evidence import LIMIT, GreyEvidence


def scene(inside: float, outside: float, *, noise: float = 0.02):
    """Return a disc of one grey on another, and its mask."""
    rows, columns = np.mgrid[:64, :64]
    mask = (rows - 30) ** 2 + (columns - 34) ** 2 < 12**2
    image = np.where(mask, inside, outside) + np.random.default_rng(0).normal(0, noise, (64, 64))
    return image.clip(0, 1).astype(np.float32), mask


@given(st.floats(0.1, 0.9), st.floats(0.1, 0.9))
def test_what_looks_like_the_object_gets_the_higher_logits(inside, outside):
    image, mask = scene(inside, outside)
    logits = GreyEvidence.of(image, mask).map(image)
    assert logits.dtype == np.float32 and logits.shape == image.shape
    assert np.abs(logits).max() <= LIMIT
    if abs(inside - outside) > 0.15:
        assert logits[mask].mean() > 1 > -1 > logits[~mask].mean()


def test_equal_grey_values_say_nothing():
    image, mask = scene(0.5, 0.5)
    assert abs(GreyEvidence.of(image, mask).map(image).mean()) < 0.3


def test_only_the_ring_around_the_object_competes():
    image, mask = scene(0.7, 0.3)
    far = image.copy()
    far[:8] = 0.7  # as bright as the object, but nowhere near it
    assert np.array_equal(GreyEvidence.of(far, mask).table, GreyEvidence.of(image, mask).table)


def test_a_doubtful_anchor_counts_less_and_a_bad_one_not():
    image, mask = scene(0.7, 0.3)
    full, half = (GreyEvidence.of(image, mask, predicted_iou=iou).table for iou in (0.9, 0.65))
    assert half == pytest.approx(full / 2, abs=1e-5)
    assert GreyEvidence.of(image, mask, predicted_iou=0.4) is None


@pytest.mark.parametrize("pixels", [0, 3, 64 * 64])
def test_nothing_is_learnt_without_an_object_or_its_surroundings(pixels):
    image, _ = scene(0.7, 0.3)
    mask = np.zeros(64 * 64, dtype=bool)
    mask[:pixels] = True
    assert GreyEvidence.of(image, mask.reshape(64, 64)) is None
