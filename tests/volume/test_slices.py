"""How a canonical volume is cut into slices."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from slicecast.errors import ConfigError, GeometryError, PromptError
from slicecast.volume import Geometry, SliceAxis, SliceStack, choose_axis
from slicecast.volume.slices import decode_rle, encode_rle

ARRAY = np.arange(6 * 5 * 4).reshape(6, 5, 4)  # 4 along i, 5 along j, 6 along k


@pytest.mark.parametrize(
    ("axis", "count", "shape", "expected"),
    [
        (SliceAxis.AXIAL, 6, (5, 4), ARRAY[2]),
        (SliceAxis.CORONAL, 5, (6, 4), ARRAY[:, 2]),
        (SliceAxis.SAGITTAL, 4, (6, 5), ARRAY[:, :, 2]),
    ],
)
def test_slices_are_views(axis, count, shape, expected):
    stack = SliceStack(ARRAY, axis)
    assert stack.count == count
    assert stack.shape_hw == shape
    assert np.array_equal(stack.slice(2), expected)
    assert np.shares_memory(stack.slice(2), ARRAY)


@given(axis=st.sampled_from(SliceAxis), ijk=st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 5)))
def test_a_pixel_is_its_voxel(axis, ijk):
    stack = SliceStack(ARRAY, axis)
    n, x, y = stack.to_slice(ijk)
    i, j, k = ijk
    assert stack.slice(n)[y, x] == ARRAY[k, j, i]
    assert tuple(stack.to_ijk(n, x, y)) == ijk


def test_many_points_at_once():
    points = np.array([(1, 2, 3), (0, 4, 5)])
    nxy = SliceAxis.CORONAL.to_slice(points)
    assert nxy.tolist() == [[2, 1, 3], [4, 0, 5]]
    assert np.array_equal(SliceAxis.CORONAL.to_ijk(*nxy.T), points)


@pytest.mark.parametrize("axis", SliceAxis)
def test_assemble_undoes_slicing(axis):
    stack = SliceStack(ARRAY, axis)
    slices = {n: stack.slice(n) for n in range(stack.count)}
    assert np.array_equal(stack.assemble(slices, dtype=np.int64), ARRAY)


def test_assemble_fills_what_is_missing():
    stack = SliceStack(ARRAY, SliceAxis.AXIAL)
    found = stack.assemble({1: np.ones((5, 4))})
    assert found.dtype == np.uint8
    assert (found[1] == 1).all()
    assert (np.delete(found, 1, axis=0) == 0).all()


def test_refuses_slices_that_do_not_fit():
    stack = SliceStack(ARRAY, SliceAxis.AXIAL)
    with pytest.raises(GeometryError, match=r"no axial slice 6; the volume has slices 0 to 5"):
        stack.slice(6)
    with pytest.raises(GeometryError, match="no axial slice -1"):
        stack.slice(-1)
    with pytest.raises(GeometryError, match=r"Slice 0 has shape \(4, 5\)"):
        stack.assemble({0: np.zeros((4, 5))})


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [
        ((1, 1, 1), SliceAxis.AXIAL),
        ((1, 1, 5), SliceAxis.AXIAL),
        ((5, 1, 1), SliceAxis.SAGITTAL),
        ((1, 5, 1), SliceAxis.CORONAL),
        ((3, 3, 1), SliceAxis.CORONAL),
        ((1.001, 1, 1), SliceAxis.AXIAL),
        ((1.2, 1, 1), SliceAxis.SAGITTAL),
    ],
)
def test_auto_takes_the_largest_spacing(spacing, expected):
    assert choose_axis(Geometry((9, 9, 9), spacing)) is expected


def test_auto_cuts_one_slice_along_its_thin_axis():
    assert choose_axis(Geometry((9, 1, 9), (1, 1, 3))) is SliceAxis.CORONAL
    assert choose_axis(Geometry((9, 9, 1), (3, 1, 1))) is SliceAxis.AXIAL


def test_named_axis():
    geometry = Geometry((9, 9, 9), (1, 1, 5))
    assert choose_axis(geometry, "Coronal") is SliceAxis.CORONAL
    assert choose_axis(geometry, SliceAxis.SAGITTAL) is SliceAxis.SAGITTAL
    with pytest.raises(ConfigError, match=r"'diagonal'. Use auto, axial, coronal or sagittal"):
        choose_axis(geometry, "diagonal")


def test_pixel_spacing():
    assert SliceAxis.CORONAL.pixel_spacing_mm(Geometry((9, 9, 9), (1, 2, 3))) == (1, 3)


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


@pytest.mark.parametrize("counts", ["", "h", "o" * 100, "h0h0", "M", "\x00", "0M2", "o" * 12 + "?"])
def test_what_is_no_mask_is_refused(counts):
    with pytest.raises(PromptError):
        decode_rle(counts, (4, 6))


def test_runs_whose_sum_passes_64_bits_are_refused():
    """In 64 bits they add up to the slice's 24 pixels, and to repeat a value so often ended the process."""
    with pytest.raises(PromptError, match="do not add up to 4 x 6"):
        decode_rle("PPPPPPPPPPPP4PPPPPPPPPPPP4PPPPPPPPPPPP40hPPPPPPPPPPPL", (4, 6))
