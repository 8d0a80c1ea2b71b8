"""What was clicked on is in the mask, or out of it, as it was said. With the bundled model, on a sample scan."""

from pathlib import Path

import numpy as np
import pytest

from slicecast.inference.segment import SegmentRequest, SegmentService
from slicecast.prompts import ObjectPrompts, Point, PromptSet
from slicecast.volume import read_volume

SAMPLES = Path(__file__).parents[2] / "sample-data"


@pytest.mark.parametrize("seed", range(3))
def test_corrections_at_random_voxels_hold(seed):
    truth = read_volume(SAMPLES / "truth" / "mr_brain_a.nii.gz").array == 10
    inside = np.argwhere(truth)
    clicks = {tuple(inside[len(inside) // 2])[::-1]: True}
    rng = np.random.default_rng(seed)
    for k, j, i in rng.integers(0, truth.shape, (6, 3)):
        clicks.setdefault((i, j, k), bool(rng.integers(2)))
    points = tuple(Point(tuple(map(int, ijk)), positive) for ijk, positive in clicks.items())
    request = SegmentRequest(SAMPLES / "studies" / "mr_brain_a.nii.gz", PromptSet((ObjectPrompts("a", points=points),)))
    mask = SegmentService().segment(request).mask
    assert all((mask[k, j, i] == 1) == positive for (i, j, k), positive in clicks.items())
