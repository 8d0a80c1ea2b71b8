"""The robot at work on one case."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slicecast.errors import ConfigError
from slicecast.volume.metrics import dice
from slicecast_lab.evaluation.prompts import pick_slice
from slicecast_lab.simulation.annotator import (
    EFFORT,
    EFFORTS,
    GOOD_SLICE,
    MAX_CLICKS,
    PERFECT,
    Actions,
    GivenPrompts,
    Robot,
    RobotSession,
    generator,
    noisy_mask,
)


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


TRUTH = np.zeros((20, 24), dtype=bool)
TRUTH[5:12, 3:15] = True
SQUARE = (1.0, 1.0)


def found(seed):
    """Return something like an answer: the truth moved, with noise."""
    rng = np.random.default_rng(seed)
    return np.roll(TRUTH, rng.integers(-4, 5, 2), (0, 1)) ^ (rng.random(TRUTH.shape) < 0.02)


@given(st.integers(0, 500), st.integers(0, 6))
def test_the_noisy_robot_never_clicks_outside_the_image(seed, times):
    click = Robot("noisy", seed).click(TRUTH, found(seed), "case", 3, times, spacing=SQUARE)
    assert click is not None
    x, y = click.index
    assert 0 <= x < TRUTH.shape[1] and 0 <= y < TRUTH.shape[0]


@given(st.integers(0, 500))
def test_the_perfect_robot_clicks_on_an_error_with_the_right_sign(seed):
    answer = found(seed)
    click = PERFECT.click(TRUTH, answer, "case", 3, 0, spacing=SQUARE)
    x, y = click.index
    assert TRUTH[y, x] != answer[y, x] and click.positive == TRUTH[y, x]


def test_nothing_is_clicked_where_nothing_is_wrong():
    assert Robot("noisy").click(TRUTH, TRUTH, "case", 3, 0, spacing=SQUARE) is None


def test_the_perfect_robot_paints_the_truth_and_the_noisy_one_nearly():
    painted = [Robot("noisy", seed).paint(TRUTH, "case", 3) for seed in range(20)]
    overlaps = [2 * (mask & TRUTH).sum() / (mask.sum() + TRUTH.sum()) for mask in painted]
    assert (PERFECT.paint(TRUTH, "case", 3) == TRUTH).all()
    assert 0.8 < np.mean(overlaps) < 0.98 and min(overlaps) > 0.6
    assert not Robot("noisy").paint(np.zeros_like(TRUTH), "case", 3).any()


def test_the_same_hand_paints_the_same():
    first, again, other = (Robot("noisy", seed).paint(TRUTH, "case", 3) for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any()


def test_about_seven_in_a_hundred_later_clicks_have_the_wrong_sign():
    empty = np.zeros_like(TRUTH)
    signs = [Robot("noisy", n).click(TRUTH, empty, "case", 3, 1, spacing=SQUARE).positive for n in range(600)]
    assert 0.04 < 1 - np.mean(signs) < 0.10
    assert all(Robot("noisy", n).click(TRUTH, empty, "case", 3, 0, spacing=SQUARE).positive for n in range(100))


def test_generators_belong_to_their_words():
    assert generator("a", 1).random() == generator("a", 1).random() != generator("a", 2).random()


def test_unknown_robots_are_refused():
    with pytest.raises(ConfigError, match="tired"):
        Robot("tired")


counts = st.integers(0, 50)
actions = st.builds(Actions, counts, counts, counts, counts)


@given(actions, actions)
def test_effort_adds_up(first, second):
    for model in EFFORTS.values():
        assert model.seconds(first + second) == model.seconds(first) + model.seconds(second)


def test_seconds_are_the_published_ones():
    assert EFFORT.seconds(Actions(looks=1, clicks=1, boxes=1, masks=1)) == 1 + 2 + 7 + 80


def test_only_painting_varies():
    painted, clicked = Actions(masks=1), Actions(clicks=1)
    assert {model.seconds(painted) for model in EFFORTS.values()} == {40, 80, 160}
    assert {model.seconds(clicked) for model in EFFORTS.values()} == {2}


def test_noisy_masks_are_near_the_truth_but_not_it(rng):
    y, x = np.indices((64, 64))
    disc = np.hypot(y - 32, x - 32) < 18
    found = [noisy_mask(disc, rng) for _ in range(20)]
    scores = [dice(mask, disc) for mask in found]
    assert min(scores) > 0.75 and max(scores) < 1.0
    assert np.mean(scores) == pytest.approx(0.92, abs=0.05)


def test_noisy_masks_are_never_lost(rng):
    dot = np.zeros((32, 32), bool)
    dot[10, 10] = True
    assert all(noisy_mask(dot, rng).any() for _ in range(50))
    assert not noisy_mask(np.zeros((8, 8), bool), rng).any()


def test_same_seed_same_mask():
    disc = np.pad(np.ones((8, 8), bool), 4)
    assert np.array_equal(noisy_mask(disc, np.random.default_rng(3)), noisy_mask(disc, np.random.default_rng(3)))
