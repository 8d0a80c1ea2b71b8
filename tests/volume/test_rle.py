import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from slicecast.errors import PromptError
from slicecast.volume.rle import decode_rle, encode_rle

MASKS = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40))

BY_PYCOCOTOOLS = {
    "h0": np.zeros((4, 6), bool),
    "0h0": np.ones((4, 6), bool),
    "0230:": np.pad(np.ones((2, 2), bool), ((0, 3), (0, 2))),
    "i;4Q16K4M2N2N2N2O0O2O0000000000000001N101N2N2N2N3L5Jbc0": (
        np.add.outer((np.arange(40) - 18.5) ** 2, (np.arange(50) - 21) ** 2) < 150
    ),
    "3120O03000M2000N210ON10O31NOO00023NO000N110O20M0330": np.random.default_rng(3).random((9, 11)) > 0.6,
    "TSm3\\9`cR4": np.pad(np.ones((300, 1), bool), ((100, 112), (250, 261))),
}
"""What COCO's own library writes for these masks."""


@pytest.mark.parametrize("counts", BY_PYCOCOTOOLS)
def test_the_text_is_that_of_cocos_library(counts):
    mask = BY_PYCOCOTOOLS[counts]
    assert encode_rle(mask) == {"size": list(mask.shape), "counts": counts}
    assert np.array_equal(decode_rle(counts, mask.shape), mask)


@given(MASKS)
def test_there_and_back(mask):
    assert np.array_equal(decode_rle(encode_rle(mask)["counts"], mask.shape), mask)


@given(st.text(max_size=40), st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_text_from_outside_is_a_mask_or_refused(text, shape):
    try:
        mask = decode_rle(text, shape)
    except PromptError:
        return
    assert mask.shape == shape and mask.dtype == bool


@pytest.mark.parametrize("counts", ["", "h", "o" * 100, "h0h0", "M", "\x00", "0M2"])
def test_what_is_no_mask_is_refused(counts):
    with pytest.raises(PromptError):
        decode_rle(counts, (4, 6))
