"""A ROI reads the same in both orders in use, and with its pairs reversed."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from slicecast.errors import PromptError
from slicecast.labelling.tasks.roi import roi_box

SIZE = (40, 30, 20)


@st.composite
def corners(draw):
    low = [draw(st.integers(0, size - 2)) for size in SIZE]
    high = [draw(st.integers(first + 1, size - 1)) for first, size in zip(low, SIZE, strict=True)]
    return tuple(low), tuple(high)


@given(corners(), st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_slicer_order_with_reversed_pairs(box, reversed_pairs):
    low, high = box
    pairs = [(h, l) if flip else (l, h) for l, h, flip in zip(low, high, reversed_pairs, strict=True)]  # noqa: E741
    point = tuple((first + last) // 2 for first, last in zip(low, high, strict=True))
    found = roi_box([n for pair in pairs for n in pair], SIZE, points=[point, low, high])
    assert (found.low_ijk, found.high_ijk) == (low, high)


@given(corners())
def test_corner_order_is_told_by_the_points(box):
    low, high = box
    (i0, j0, k0), (i1, j1, k1) = low, high
    a_then_b = (min(i0, j0), max(i0, j0)), (min(i1, j1), max(i1, j1))
    assume(not (a_then_b[0][0] <= i0 and i1 <= a_then_b[0][1] and a_then_b[1][0] <= j0 and j1 <= a_then_b[1][1]))
    found = roi_box([i0, j0, i1, j1, k0, k1], SIZE, points=[low, high, (i0, j1, k0), (i1, j0, k1)])
    assert (found.low_ijk, found.high_ijk) == (low, high)


def test_the_order_that_fits_the_volume_is_meant():
    found = roi_box([35, 2, 38, 28, 0, 5], SIZE)  # as pairs, j would run from 28 to 38 and leave the 30 rows
    assert (found.low_ijk, found.high_ijk) == ((35, 2, 0), (38, 28, 5))


def test_slicer_is_believed_when_nothing_tells():
    found = roi_box([2, 10, 4, 12, 0, 5], SIZE)
    assert (found.low_ijk, found.high_ijk) == ((2, 4, 0), (10, 12, 5))


def test_it_is_cut_off_at_the_volume():
    found = roi_box([-5, 100, 2, 4, 3, -9], SIZE)
    assert (found.low_ijk, found.high_ijk) == ((0, 2, 0), (39, 4, 3))


def test_four_numbers_need_a_slice():
    assert roi_box([1, 5, 2, 6], SIZE, slice=7).high_ijk == (5, 6, 7)
    with pytest.raises(PromptError, match="a volume needs six numbers"):
        roi_box([1, 5, 2, 6], SIZE)


def test_beyond_the_volume():
    with pytest.raises(PromptError, match="lies outside the volume of 40 x 30 x 20 voxels"):
        roi_box([50, 60, 50, 60, 0, 5], SIZE)
