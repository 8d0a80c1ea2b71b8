import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracking import answer

from slicecast.engine.confidence import probability_of_presence, slice_confidence
from slicecast.engine.tracker import SliceAnswer

HALF = np.zeros((8, 8), bool)
HALF[:4] = True

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


def test_presence_is_the_sigmoid_of_the_object_score():
    assert probability_of_presence(answer(HALF, object_score=0.0)) == pytest.approx(0.5)
    assert probability_of_presence(answer(HALF, object_score=-1e6)) < 1e-20
