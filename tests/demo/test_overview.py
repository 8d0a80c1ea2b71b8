"""The picture of annotated cases."""

import labelserver  # noqa: F401 - imports MONAI Label without its warnings
import numpy as np
import pytest
from builders import KINDS, phantom
from matplotlib.image import imread

from slicecast.demo.annotator import SampleCase, ObjectRecord
from slicecast.demo.overview import draw_overview


@pytest.mark.parametrize("kind", KINDS)
def test_truth_and_result_are_outlined(tmp_path, kind):
    volume, truth = phantom(kind)
    case = SampleCase("first", volume, truth.astype(np.uint8), {1: "ball"})
    shifted = ObjectRecord("first", "ball", (), (0.7,), (0.1,), np.roll(truth, 3, axis=2))
    picture = imread(draw_overview([(case, [shifted])], tmp_path / "new" / "overview.png"))
    green, red = picture[..., 1] - picture[..., 0] > 0.4, picture[..., 0] - picture[..., 1] > 0.5
    assert green.sum() > 100 and red.sum() > 100


def test_nothing_found_is_drawn_too(tmp_path):
    volume, truth = phantom()
    nothing = ObjectRecord("first", "ball", (), (), (), np.zeros_like(truth))
    case = SampleCase("first", volume, truth.astype(np.uint8), {1: "ball"})
    assert draw_overview([(case, [nothing])], tmp_path / "overview.png").is_file()
