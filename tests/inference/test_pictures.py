"""What is drawn of slices."""

import io

import numpy as np
import pytest
from builders import ball, grid, scan
from matplotlib.image import imread

from slicecast.errors import GeometryError
from slicecast.inference.pictures import draw_montage, new_figure, outline, show_slice, spread
from slicecast.inference.studies import open_study
from slicecast.volume import SliceAxis, SliceStack, Volume


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


def pixels(png):
    return imread(io.BytesIO(png), format="png")[..., :3]


def coloured(png):
    shown = pixels(png)
    return int((np.ptp(shown, axis=-1) > 0.2).sum())


def test_the_mask_is_outlined():
    study = open_study(scan(ball()))
    mask = Volume(ball().astype(np.uint8), grid())
    assert coloured(draw_montage(study)) == 0 < coloured(draw_montage(study, mask))


def test_more_slices_make_a_wider_montage():
    study = open_study(scan(ball()))
    assert pixels(draw_montage(study, count=8)).shape[1] > pixels(draw_montage(study, count=3)).shape[1]


def test_a_mask_of_another_size():
    with pytest.raises(GeometryError, match="Save it again"):
        draw_montage(open_study(scan(ball())), Volume(np.ones((2, 3, 4), np.uint8), grid((4, 3, 2))))
