"""The robot at work on one case."""

import numpy as np
import pytest

from slicecast.volume.metrics import dice
from slicecast_lab.evaluation.cases import pick_slice
from slicecast_lab.simulation.annotator import GOOD_SLICE, MAX_CLICKS, Bench, Said
from slicecast_lab.simulation.robot import Actions, Robot


def test_a_painted_slice_is_right_in_the_answer(bench):
    number = pick_slice(bench.case, "largest")
    said, done = bench.correct(Said(), number, None)
    answer = bench.ask(said)
    assert bench.iou(answer, number) == 1.0 and said.slices == {number}
    assert done == Actions(looks=1, masks=1)
    assert number not in answer.features and answer.features


def test_a_slice_without_the_object_is_marked_and_costs_a_click(bench):
    said, _ = bench.correct(Said(), pick_slice(bench.case, "largest"), None)
    empty = int(np.flatnonzero(bench.case.areas == 0)[0])
    said, done = bench.correct(said, empty, bench.ask(said))
    assert said.absent == {empty} and done == Actions(looks=1, clicks=1)
    assert not bench.case.slices(bench.ask(said).mask).slice(empty).any()


def test_whether_it_is_there_takes_one_click(bench):
    said, _ = bench.correct(Said(), pick_slice(bench.case, "largest"), None)
    first, _ = bench.case.extent
    said, done = bench.correct(said, first, bench.ask(said), only_present=True)
    ((x, y, positive),) = said.points[first]
    assert positive and bench.case.slices(bench.case.truth).slice(first)[y, x]
    assert done == Actions(looks=1, clicks=1)


@pytest.mark.parametrize("kind", ["perfect", "noisy"])
def test_clicks_end_when_the_slice_is_good_and_all_are_counted(bench, kind):
    clicking = Bench(bench.case, bench.service, Robot(kind), "clicks")
    number = pick_slice(bench.case, "largest")
    said, done = clicking.correct(Said(), number, None)
    clicks = said.points[number]
    assert 1 <= len(clicks) <= done.clicks <= MAX_CLICKS and done.masks == 0
    found = bench.case.slices(clicking.ask(said).mask).slice(number)
    truth = bench.case.slices(bench.case.truth).slice(number)
    assert len(clicks) == MAX_CLICKS or kind == "noisy" or dice(found, truth) >= GOOD_SLICE


def test_a_good_slice_is_accepted_as_it_is(bench):
    clicking = Bench(bench.case, bench.service, bench.robot, "clicks")
    number = pick_slice(bench.case, "largest")
    said, _ = bench.correct(Said(), number, None)
    answer = bench.ask(said)
    good = next(n for n in answer.features if bench.case.areas[n] and bench.iou(answer, n) > GOOD_SLICE)
    after, done = clicking.correct(said, good, answer)
    assert (after.painted[good] == bench.case.slices(answer.mask).slice(good)).all()
    assert done == Actions(looks=1, clicks=1)
