import numpy as np
import pytest
from builders import ball, dice, scan

import slicecast
from slicecast.engine.fake import FakePredictor
from slicecast.errors import PromptError
from slicecast.inference.api import segment
from slicecast.inference.segment import SegmentService
from slicecast.prompts import Absent, Box, MaskPrompt, Point
from slicecast.prompts.parsing import UNNAMED, collect_prompts
from slicecast.volume import write_volume

TRUTH = ball()


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "ball.nii.gz"
    write_volume(path, scan(TRUTH))
    return path


@pytest.fixture
def service():
    return SegmentService(predictor=FakePredictor())


def test_lists_belong_to_one_object_without_a_name():
    prompts = collect_prompts(points=[(1, 2, 3)], negative=[(4, 5, 6)], boxes=[((0, 0, 1), (5, 5, 1))], absent=[7])
    (only,) = prompts.objects
    assert only.name == UNNAMED
    assert only.points == (Point((1, 2, 3)), Point((4, 5, 6), positive=False))
    assert only.boxes == (Box((0, 0, 1), (5, 5, 1)),) and only.absent == (Absent(7),)


def test_mappings_name_objects_in_order():
    masks = {"kidney": [TRUTH], "liver": [MaskPrompt(TRUTH, slices=(8,))]}
    prompts = collect_prompts(points={"spleen": [(1, 2, 3)], "liver": []}, masks=masks)
    assert prompts.names == ("spleen", "liver", "kidney")
    assert prompts.objects[1].masks[0].slices == (8,) and prompts.objects[2].masks[0].slices is None


def test_nothing_to_start_from_is_refused():
    with pytest.raises(PromptError, match="no prompt"):
        collect_prompts()
    with pytest.raises(PromptError, match="nothing to start from"):
        collect_prompts(negative=[(1, 2, 3)])


@pytest.mark.parametrize("as_text", [True, False])
def test_one_call_segments_an_image(image, service, as_text):
    result = segment(str(image) if as_text else image, points={"ball": [(12, 10, 8)]}, service=service)
    assert result.labels == {"ball": 1} and dice(result.mask == 1, TRUTH) > 0.8


def test_every_setting_is_passed_on(image, service):
    options = slicecast.EngineOptions(gone_slices=0)
    result = segment(
        image, points=[(12, 10, 8)], axis="coronal", range=(9, 12), window="0:150", options=options, service=service
    )
    assert result.axis == "coronal" and result.window.high == 150
    assert np.flatnonzero(result.mask.any(axis=(0, 2))).tolist() == [9, 10, 11]


def test_it_is_what_the_package_offers():
    assert slicecast.segment is segment
