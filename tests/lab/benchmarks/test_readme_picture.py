"""The README's picture."""

import labelserver  # noqa: F401 - imports MONAI Label without its warnings
import numpy as np
import pytest
from builders import KINDS, phantom
from matplotlib.image import imread

from slicecast.demo.annotator import SampleCase
from slicecast.engine.fake import FakePredictor
from slicecast.errors import PromptError
from slicecast.inference.segment import SegmentService
from slicecast.volume import write_mask
from slicecast_lab.benchmarks.readme_picture import draw, shoot


@pytest.fixture
def service():
    return SegmentService(predictor=FakePredictor())


def case_and_image(folder, kind="sphere"):
    volume, truth = phantom(kind)
    scan = np.where(truth, 200, 20).astype(np.uint8)
    image = write_mask(folder / "scan.nii.gz", scan, volume.geometry)
    return SampleCase("scan", volume.with_array(scan), truth.astype(np.uint8), {1: "ball"}), image


@pytest.mark.parametrize("kind", KINDS)
def test_one_click_inside_the_structure_is_drawn_with_result_and_truth(tmp_path, service, kind):
    case, image = case_and_image(tmp_path, kind)
    shot = shoot(case, "ball", image=image, service=service)
    i, j, k = shot.click_ijk
    assert case.truth[k, j, i] == 1 and shot.result.mask[k, j, i] == 1
    picture = imread(draw(shot, tmp_path / "new" / "overview.png"))
    assert (picture[..., 0] - picture[..., 1] > 0.5).sum() > 100


def test_a_structure_that_is_not_shown_is_refused(tmp_path, service):
    case, image = case_and_image(tmp_path)
    with pytest.raises(PromptError, match=r"does not show 'spleen'.*ball"):
        shoot(case, "spleen", image=image, service=service)
