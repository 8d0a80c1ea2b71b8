import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slicecast.engine.appearance import LIMIT, Appearance, AppearancePrior

SIZE, CELLS = 64, 16


def picture(inside, outside=0.1, seed=0):
    """Noise around two levels; the object is the middle of the square."""
    noise = np.random.default_rng(seed).normal(0, 0.02, (SIZE, SIZE))
    image = np.full((SIZE, SIZE), outside)
    image[16:48, 16:48] = inside
    return (image + noise).astype(np.float32)


def middle():
    logits = np.full((CELLS, CELLS), -5.0, dtype=np.float32)
    logits[4:12, 4:12] = 5.0
    return logits


def test_the_same_tissue_fits_and_another_does_not():
    look = Appearance.of(picture(0.6), middle())
    assert look.fits(picture(0.6, seed=1), middle(), share=0.6)
    assert look.fits(picture(0.63, seed=1), middle(), share=0.6)
    assert not look.fits(picture(0.2, seed=1), middle(), share=0.6)
    assert not look.fits(picture(0.9, seed=1), middle(), share=0.6)


def test_a_share_of_the_pixels_is_enough():
    look = Appearance.of(picture(0.6), middle())
    half = picture(0.6, seed=1)
    half[16:32, 16:48] = 0.2
    assert look.fits(half, middle(), share=0.4)
    assert not look.fits(half, middle(), share=0.6)


def test_a_mixed_object_is_judged_by_its_own_mixture():
    """A tumour's rim and core, say: the range covers both, so either may grow."""
    mixed = picture(0.6)
    mixed[16:32, 16:48] = 0.3
    look = Appearance.of(mixed, middle())
    assert look.fits(picture(0.3, seed=1), middle(), share=0.6)


def test_an_empty_mask_has_no_appearance_and_fits_nothing():
    empty = np.full((CELLS, CELLS), -5.0, dtype=np.float32)
    assert Appearance.of(picture(0.6), empty) is None
    assert not Appearance.of(picture(0.6), middle()).fits(picture(0.6), empty, share=0.0)


@pytest.mark.parametrize("scale", [0.5, 0.8])
def test_the_range_follows_the_contrast(scale):
    look = Appearance.of(picture(0.6) * np.float32(scale), middle())
    assert look.fits(picture(0.6, seed=2) * np.float32(scale), middle(), share=0.6)


def scene(inside: float, outside: float, *, noise: float = 0.02):
    """Return a disc of one grey on another, and its mask."""
    rows, columns = np.mgrid[:64, :64]
    mask = (rows - 30) ** 2 + (columns - 34) ** 2 < 12**2
    image = np.where(mask, inside, outside) + np.random.default_rng(0).normal(0, noise, (64, 64))
    return image.clip(0, 1).astype(np.float32), mask


@given(st.floats(0.1, 0.9), st.floats(0.1, 0.9))
def test_what_looks_like_the_object_gets_the_higher_logits(inside, outside):
    image, mask = scene(inside, outside)
    logits = AppearancePrior.of(image, mask).map(image)
    assert logits.dtype == np.float32 and logits.shape == image.shape
    assert np.abs(logits).max() <= LIMIT
    if abs(inside - outside) > 0.15:
        assert logits[mask].mean() > 1 > -1 > logits[~mask].mean()


def test_equal_grey_values_say_nothing():
    image, mask = scene(0.5, 0.5)
    assert abs(AppearancePrior.of(image, mask).map(image).mean()) < 0.3


def test_only_the_ring_around_the_object_competes():
    image, mask = scene(0.7, 0.3)
    far = image.copy()
    far[:8] = 0.7  # as bright as the object, but nowhere near it
    assert np.array_equal(AppearancePrior.of(far, mask).table, AppearancePrior.of(image, mask).table)


def test_a_doubtful_anchor_counts_less_and_a_bad_one_not():
    image, mask = scene(0.7, 0.3)
    full, half = (AppearancePrior.of(image, mask, predicted_iou=iou).table for iou in (0.9, 0.65))
    assert half == pytest.approx(full / 2, abs=1e-5)
    assert AppearancePrior.of(image, mask, predicted_iou=0.4) is None


@pytest.mark.parametrize("pixels", [0, 3, 64 * 64])
def test_nothing_is_learnt_without_an_object_or_its_surroundings(pixels):
    image, _ = scene(0.7, 0.3)
    mask = np.zeros(64 * 64, dtype=bool)
    mask[:pixels] = True
    assert AppearancePrior.of(image, mask.reshape(64, 64)) is None
