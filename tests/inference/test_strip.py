"""A strip of slices."""

import io

import numpy as np
import pytest
from builders import ball, grid, scan
from matplotlib import image

from slicecast.errors import GeometryError
from slicecast.inference.strip import draw_strip
from slicecast.inference.studies import open_study
from slicecast.volume import Volume


def pixels(png):
    return image.imread(io.BytesIO(png), format="png")[..., :3]


def coloured(png):
    shown = pixels(png)
    return int((np.ptp(shown, axis=-1) > 0.2).sum())


def test_the_mask_is_outlined():
    study = open_study(scan(ball()))
    mask = Volume(ball().astype(np.uint8), grid())
    assert coloured(draw_strip(study)) == 0 < coloured(draw_strip(study, mask))


def test_more_slices_make_a_wider_strip():
    study = open_study(scan(ball()))
    assert pixels(draw_strip(study, count=8)).shape[1] > pixels(draw_strip(study, count=3)).shape[1]


def test_a_mask_of_another_size():
    with pytest.raises(GeometryError, match="Save it again"):
        draw_strip(open_study(scan(ball())), Volume(np.ones((2, 3, 4), np.uint8), grid((4, 3, 2))))
