import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from slicecast.engine.packed import PackedMask


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_a_mask_comes_back_as_it_was(rows, columns, seed):
    mask = np.random.default_rng(seed).random((rows, columns)) > 0.5
    packed = PackedMask.of(mask)
    assert (packed.unpack() == mask).all() and packed.unpack().shape == mask.shape
    assert packed.empty == (not mask.any())
    assert packed == PackedMask.of(np.asfortranarray(mask))


def test_a_painted_slice_is_small():
    mask = np.zeros((512, 512), bool)
    mask[100:200, 100:220] = True
    assert len(PackedMask.of(mask).data) < 1000
