from types import SimpleNamespace

import numpy as np
import pytest
from tracking import absent, answer, painted

from slicecast.active.calibration import UNCALIBRATED
from slicecast.engine.crop_window import CropWindow
from slicecast.engine.postprocess import ObjectResult
from slicecast.inference.results import advise, areas_of, evidence_of, judge, slice_features

HALF = np.zeros((8, 8), bool)
HALF[:4] = True
VIEW = CropWindow(0, 0, 8, 8)
AREAS = np.array([0.0, 20.0, 40.0, 40.0, 10.0, 0.0])


class Fitted:
    """Stands for a fit that holds, or one that was tried and does not rank."""

    def __init__(self, *, holds=True):
        self.holds, self.failed, self.slices = holds, not holds, 300
        self.after = SimpleNamespace(spearman=0.12)

    def qualities(self, features):
        return np.array([0.25 for _ in features])


def track(prompts=(), met=()):
    answers = {
        1: answer(HALF, predicted_iou=0.5),
        2: answer(HALF, prompted=True),
        3: answer(HALF, predicted_iou=0.9, agreement=0.7),
        4: answer(HALF, predicted_iou=0.8),
        5: answer(),
    }
    return ObjectResult(VIEW, answers, prompts or (painted(2, HALF),), met)


def result(*tracks):
    labels = {n: np.full((8, 8), 1, np.uint8) for n in (1, 2, 3, 4)}
    return SimpleNamespace(labels=labels, objects=dict(zip("ab", tracks, strict=False)))


def test_signs_say_how_far_the_next_prompt_is_and_how_alike_the_neighbours_areas_are():
    features = dict(slice_features(track(), AREAS))
    assert [features[n].distance for n in (1, 2, 3, 4, 5)] == [1, 0, 1, 2, 3]
    assert [features[n].area_ratio for n in (1, 2, 3, 4, 5)] == pytest.approx([0, 0.5, 0.25, 0, 0])
    assert features[3].agreement == 0.7 and not features[5].seen and features[5].presence < 0.05


def test_prompted_slices_teach_nothing_and_keep_the_engines_own_confidence():
    judged = judge(track(), AREAS, Fitted())
    assert judged[2].features is None and judged[2].value > 0.8
    assert {judged[n].value for n in (1, 3, 4, 5)} == {0.25} and judged[1].features is not None


def test_where_the_object_is_not_seen_the_raw_confidence_makes_no_candidate():
    raw = judge(track(), AREAS, UNCALIBRATED)
    assert np.flatnonzero(evidence_of(track(), AREAS, raw, calibrated=False).free).tolist() == [1, 3, 4]
    assert np.flatnonzero(evidence_of(track(), AREAS, raw, calibrated=True).free).tolist() == [1, 3, 4, 5]


def test_agreement_counts_only_where_lanes_met_from_both_sides():
    evidence = evidence_of(track(met={3}), AREAS, judge(track(), AREAS, UNCALIBRATED), calibrated=False)
    assert evidence.agreement[3] == 0.7 and np.isnan(evidence.agreement[[0, 1, 2, 4, 5]]).all()


def test_a_slice_that_was_called_absent_is_annotated():
    given = track(prompts=(painted(2, HALF), absent(5)))
    evidence = evidence_of(given, AREAS, judge(given, AREAS, UNCALIBRATED), calibrated=False)
    assert np.flatnonzero(evidence.annotated).tolist() == [2, 5]


def test_the_least_sure_object_of_a_slice_counts_and_the_reason_names_the_object():
    other = ObjectResult(VIEW, {3: answer(HALF, predicted_iou=0.1)}, (painted(2, HALF),))
    advice = advise(result(track(), other), count=6, strategy="worst", calibration=UNCALIBRATED)
    assert list(advice.slices) == [1, 2, 3, 4, 5] and advice.slices[3].value < 0.2
    assert advice.choice.slice == 3 and advice.choice.reason.startswith("b: ")


@pytest.mark.parametrize("name", ["value", "worst"])
def test_a_confidence_that_does_not_rank_chooses_nothing_and_the_reason_says_so(name):
    failed = advise(result(track()), count=6, strategy=name, calibration=Fitted(holds=False))
    assert (
        failed.choice.strategy == "strided"
        and "does not rank slices here (rank correlation 0.12" in failed.choice.reason
    )
    held = advise(result(track()), count=6, strategy=name, calibration=Fitted())
    assert held.choice.strategy == name and held.calibrated


def test_areas_are_those_of_one_object():
    labels = {0: np.array([[1, 2], [2, 2]], np.uint8), 3: np.array([[0, 1], [1, 0]], np.uint8)}
    assert areas_of(labels, 1, count=4).tolist() == [1, 0, 0, 2]
    assert areas_of(labels, 2, count=4).tolist() == [3, 0, 0, 0]
