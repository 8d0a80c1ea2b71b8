import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from slicecast.engine.axes import weight_of
from slicecast.volume.metrics import dice

masks = arrays(np.bool_, (3, 4, 5))


@given(masks, masks)
def test_a_further_axis_counts_as_much_as_it_agrees_at_most(first, further):
    weight = weight_of(first, further)
    assert 0 <= weight <= dice(first, further)
    if np.count_nonzero(further) >= np.count_nonzero(first) > 0:
        assert weight == dice(first, further)


@given(masks, st.integers(0, 2))
def test_a_part_counts_less_than_the_whole(first, kept):
    part = first.copy()
    part[kept:] = False
    assert weight_of(first, first) == float(first.any())
    if part.any() and not part.all() and (part != first).any():
        assert weight_of(first, part) < dice(first, part)
