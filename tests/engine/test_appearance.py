import numpy as np
import pytest

from slicecast.engine.appearance import Appearance

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
