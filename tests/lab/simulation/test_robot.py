"""The robot's hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slicecast.errors import ConfigError
from slicecast_lab.simulation.robot import PERFECT, Robot, generator

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
