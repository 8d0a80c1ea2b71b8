"""What is drawn of slices."""

import io

import numpy as np
import pytest
from builders import ball, grid
from matplotlib.image import imread

from slicecast.inference.pictures import new_figure, outline, show_slice, spread
from slicecast.volume import SliceAxis, SliceStack


def drawn(figure):
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=50)
    return imread(io.BytesIO(png.getvalue()), format="png")[..., :3]


@pytest.mark.parametrize(("axis", "white_above"), [(SliceAxis.AXIAL, True), (SliceAxis.CORONAL, False)])
def test_up_the_body_is_up(axis, white_above):
    grey = np.zeros((20, 20))
    grey[:10] = 1
    figure = new_figure(2, 2, background="red")
    show_slice(figure.subplots(), grey, axis=axis, geometry=grid((20, 20, 20)))
    column = drawn(figure)[:, 50]
    white, black = (column == 1).all(-1).nonzero()[0].mean(), (column == 0).all(-1).nonzero()[0].mean()
    assert (white < black) == white_above


def test_each_object_has_its_colour_and_a_full_slice_no_outline():
    labels = np.zeros((20, 20), dtype=np.uint8)
    labels[2:8, 2:8], labels[12:18, 12:18] = 1, 2
    figure = new_figure(2, 2)
    outline(figure.subplots(), labels, colours=("#ff0000", "#0000ff"), width=3)
    outline(figure.axes[0], np.ones_like(labels), colours=("#00ff00",))
    pixels = drawn(figure)
    red, green, blue = ((pixels[..., n] > 0.9) & (pixels.sum(-1) < 1.2) for n in range(3))
    assert red.any() and blue.any() and not green.any()


def test_slices_go_from_one_end_of_the_mask_to_the_other():
    mask = ball()
    used = np.flatnonzero(mask.any(axis=(1, 2)))
    stack = SliceStack(mask, SliceAxis.AXIAL)
    shown = spread(stack, count=4, total=stack.count)
    assert (shown[0], shown[-1], len(shown)) == (used[0], used[-1], 4)
    assert (
        spread(None, count=3, total=9)
        == spread(SliceStack(mask & False, SliceAxis.AXIAL), count=3, total=9)
        == [0, 4, 8]
    )
    assert spread(None, count=8, total=3) == [0, 1, 2]
