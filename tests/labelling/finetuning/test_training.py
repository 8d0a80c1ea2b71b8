import numpy as np
import pytest
from builders import ball, scan

from slicecast.inference.segment import SegmentService
from slicecast.inference.studies import open_study
from slicecast.labelling.finetuning.training import KINDS, JudgedObject, judge
from slicecast.training.finetune import RoundSettings
from slicecast.volume import write_volume
from slicecast_lab.simulation.fake import FakePredictor

GROUPS = {"a/x": "a", "a/y": "a", "b/x": "b", "c/x": "c"}
SETTINGS = RoundSettings(margin=0.02)


def scores(value: float, **changes: float):
    return {name: {**dict.fromkeys(KINDS, value), **changes} for name in GROUPS}


def test_better_from_every_prompt_passes():
    verdict = judge(scores(0.8), scores(0.7), settings=SETTINGS, groups=GROUPS)
    assert verdict.passed and verdict.gain == pytest.approx(0.1) and verdict.structures == 4
    assert verdict.low == verdict.high == pytest.approx(0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_one_kind_that_loses_too_much_is_refused_whatever_the_mean(kind):
    verdict = judge(scores(0.9, **{kind: 0.67}), scores(0.7), settings=SETTINGS, groups=GROUPS)
    assert not verdict.passed and kind in verdict.why and verdict.gain > 0
    within = judge(scores(0.9, **{kind: 0.69}), scores(0.7), settings=SETTINGS, groups=GROUPS)
    assert within.passed


def test_no_gain_is_refused():
    assert not judge(scores(0.7), scores(0.7), settings=SETTINGS, groups=GROUPS).passed


def test_only_what_both_answered_is_compared_and_nothing_is_no_pass():
    new, old = scores(0.8), scores(0.7)
    del old["a/x"]
    new["a/y"] = dict.fromkeys(KINDS, 0.0)
    del new["a/y"]
    assert judge(new, old, settings=SETTINGS, groups=GROUPS).structures == 2
    assert not judge({}, old, settings=SETTINGS, groups=GROUPS).passed


def test_a_structure_is_segmented_from_each_kind_of_prompt(tmp_path):
    truth = np.roll(ball(), 2, axis=0)
    volume = scan(truth)
    image = write_volume(tmp_path / "ball.nii.gz", volume)
    service = SegmentService(predictor=FakePredictor(image_size=64))
    found = JudgedObject(image, open_study(volume), truth).dice_by_prompt(service)
    assert found.keys() == set(KINDS)
    assert all(value > 0.7 for value in found.values()), found
