"""Courses: a strategy and the robot in turns."""

import pytest

from slicecast.errors import ConfigError
from slicecast_lab.simulation.slices import play, play_label, turns
from slicecast_lab.simulation.strategies import check_slices

NAMES = ["value", "strided", "worst", "disagree", "random", "oracle_worst"]


@pytest.mark.parametrize("name", NAMES)
def test_no_slice_is_named_twice_and_all_work_is_counted(session, name):
    steps = play(session, name, 3)["steps"]
    numbers = [step["slice"] for step in steps]
    assert len(set(numbers)) == len(numbers) <= 4
    for step in steps:
        looks, clicks, boxes, masks = step["actions"]
        assert looks == 1 and clicks + masks == 1 and boxes == 0
    assert steps[-1]["dice"] > steps[0]["dice"]


def test_the_oracle_takes_the_slice_with_the_most_wrong_voxels(session):
    first, second = list(turns(session, "oracle_worst", 1))
    wrong = [
        (session.case.slices(first.answer.mask != session.case.truth).slice(n).sum(), -n)
        for n in range(len(session.case.areas))
        if n != first.number
    ]
    assert second.number == -max(wrong)[1]


def test_a_label_is_the_last_answer_with_all_its_work(session):
    mask, actions = play_label(session, "strided", 2)
    last = list(turns(session, "strided", 2))[-1]
    assert (mask == last.answer.mask).all() and actions == [3, 0, 0, 3]


def test_a_course_repeats(session):
    assert play(session, "random", 2) == play(session, "random", 2)


def test_unknown_strategies_are_refused():
    with pytest.raises(ConfigError, match="best"):
        check_slices("best")
