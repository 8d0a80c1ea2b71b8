import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracking import answer

from slicecast.engine.confidence import Suggestion, least_sure, slice_confidence, suggest_slice
from slicecast.engine.tracker import SliceAnswer

HALF, QUARTER = np.zeros((8, 8), bool), np.zeros((8, 8), bool)
HALF[:4], QUARTER[:2] = True, True

scores = st.floats(-1e4, 1e4)


@given(st.booleans(), scores, st.floats(-1, 2), st.floats(0, 1))
def test_confidence_lies_between_0_and_1(shown, score, iou, agreement):
    seen = answer(HALF if shown else None, object_score=score, predicted_iou=iou, agreement=agreement)
    assert 0.0 <= slice_confidence(seen) <= 1.0


@given(st.floats(0.1, 10), st.floats(0.1, 10))
def test_a_higher_object_score_is_surer_that_it_is_there_and_less_sure_that_it_is_not(low, more):
    there = [slice_confidence(answer(HALF, object_score=s)) for s in (low, low + more)]
    away = [slice_confidence(answer(object_score=s)) for s in (-low - more, -low)]
    assert there[0] < there[1] and away[0] > away[1]


def test_lanes_that_disagree_lower_the_confidence():
    assert slice_confidence(answer(HALF, agreement=0.5)) == pytest.approx(slice_confidence(answer(HALF)) / 2)


def test_a_lost_object_is_not_certain_merely_because_its_logits_are_extreme():
    lost = SliceAnswer(np.full((8, 8), -1024, np.float32), 0.9, object_score=-0.1)
    assert slice_confidence(lost) < 0.6


def test_the_least_sure_slice_is_suggested():
    answers = {n: answer(HALF, predicted_iou=iou) for n, iou in enumerate((0.9, 0.4, 0.6))}
    found = suggest_slice("liver", answers)
    assert found.slice == 1 and found.score == pytest.approx(slice_confidence(answers[1]))
    assert "liver" in found.reason and "least accurate" in found.reason


def test_prompted_slices_and_slices_without_the_object_are_not_suggested():
    answers = {0: answer(HALF, prompted=True, predicted_iou=0.1), 1: answer(), 2: answer(HALF)}
    assert suggest_slice("a", answers).slice == 2
    assert suggest_slice("a", {0: answers[0], 1: answers[1]}) is None


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({0: answer(HALF, agreement=0.3)}, "agree only to Dice 0.30"),
        ({0: answer(QUARTER), 1: answer(HALF, prompted=True)}, "the area changes by 50%"),
        ({0: answer(HALF, object_score=0.2)}, "not sure that it is there"),
        ({0: answer(HALF)}, "least accurate"),
    ],
)
def test_the_reason_is_said(answers, reason):
    assert reason in suggest_slice("a", answers).reason


def test_of_several_objects_the_least_sure_counts():
    low, high = Suggestion(3, 0.2, "low"), Suggestion(5, 0.8, "high")
    assert least_sure([high, None, low]) is low
    assert least_sure([None]) is None
