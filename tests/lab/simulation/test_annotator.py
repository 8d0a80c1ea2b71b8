"""The robot at work on one case."""

import numpy as np
import pytest

from slicecast.volume.metrics import dice
from slicecast_lab.evaluation.cases import pick_slice
from slicecast_lab.simulation.annotator import GOOD_SLICE, MAX_CLICKS, GivenPrompts, RobotSession
from slicecast_lab.simulation.robot import Actions, Robot


def test_a_painted_slice_is_right_in_the_answer(session):
    number = pick_slice(session.case, "largest")
    said, done = session.correct(GivenPrompts(), number, None)
    answer = session.ask(said)
    assert session.iou(answer, number) == 1.0 and said.slices == {number}
    assert done == Actions(looks=1, masks=1)
    assert number not in answer.features and answer.features


def test_a_slice_without_the_object_is_marked_and_costs_a_click(session):
    said, _ = session.correct(GivenPrompts(), pick_slice(session.case, "largest"), None)
    empty = int(np.flatnonzero(session.case.areas == 0)[0])
    said, done = session.correct(said, empty, session.ask(said))
    assert said.absent == {empty} and done == Actions(looks=1, clicks=1)
    assert not session.case.slices(session.ask(said).mask).slice(empty).any()


def test_whether_it_is_there_takes_one_click(session):
    said, _ = session.correct(GivenPrompts(), pick_slice(session.case, "largest"), None)
    first, _ = session.case.extent
    said, done = session.correct(said, first, session.ask(said), only_present=True)
    ((x, y, positive),) = said.points[first]
    assert positive and session.case.slices(session.case.truth).slice(first)[y, x]
    assert done == Actions(looks=1, clicks=1)


@pytest.mark.parametrize("kind", ["perfect", "noisy"])
def test_clicks_end_when_the_slice_is_good_and_all_are_counted(session, kind):
    clicking = RobotSession(session.case, session.service, Robot(kind), "clicks")
    number = pick_slice(session.case, "largest")
    said, done = clicking.correct(GivenPrompts(), number, None)
    clicks = said.points[number]
    assert 1 <= len(clicks) <= done.clicks <= MAX_CLICKS and done.masks == 0
    found = session.case.slices(clicking.ask(said).mask).slice(number)
    truth = session.case.slices(session.case.truth).slice(number)
    assert len(clicks) == MAX_CLICKS or kind == "noisy" or dice(found, truth) >= GOOD_SLICE


def test_a_good_slice_is_accepted_as_it_is(session):
    clicking = RobotSession(session.case, session.service, session.robot, "clicks")
    number = pick_slice(session.case, "largest")
    said, _ = session.correct(GivenPrompts(), number, None)
    answer = session.ask(said)
    good = next(n for n in answer.features if session.case.areas[n] and session.iou(answer, n) > GOOD_SLICE)
    after, done = clicking.correct(said, good, answer)
    assert (after.painted[good] == session.case.slices(answer.mask).slice(good)).all()
    assert done == Actions(looks=1, clicks=1)
