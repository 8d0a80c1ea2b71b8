from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slicecast.active import slices
from slicecast.active.slices import STRATEGIES, SliceChoice, SliceEvidence, best_of, suggest, values
from slicecast.errors import ConfigError

RHO = 0.85


def seen(quality, *, annotated=(), clicks=None, agreement=None, area=None, calibrated=False):
    """Make evidence of slices that all show the object, unless their area says otherwise."""
    count = len(quality)
    said = np.zeros(count, bool)
    said[list(annotated)] = True
    times = np.zeros(count, int)
    for number, clicked in (clicks or {}).items():
        said[number], times[number] = True, clicked
    nowhere = np.full(count, np.nan)
    return SliceEvidence(
        np.array(quality, float),
        np.full(count, 10.0) if area is None else np.array(area, float),
        nowhere if agreement is None else np.array(agreement, float),
        said,
        times,
        calibrated,
    )


@st.composite
def evidences(draw):
    count = draw(st.integers(1, 24))

    def column(values):
        return np.array(draw(st.lists(values, min_size=count, max_size=count)))

    unit = st.one_of(st.floats(0, 1), st.just(np.nan))
    annotated = column(st.booleans())
    return SliceEvidence(
        column(unit).astype(float),
        column(st.sampled_from([0.0, 0.0, 5.0, 40.0])),
        column(unit).astype(float),
        annotated,
        np.where(annotated, column(st.integers(0, 5)), 0),
        draw(st.booleans()),
    )


@given(evidences(), st.sampled_from(sorted(STRATEGIES)))
def test_a_slice_is_suggested_that_no_prompt_settled_and_that_a_track_reached(evidence, name):
    choice = suggest(name, evidence)
    assert choice.slice is None or np.isfinite(evidence.quality[choice.slice])
    assert choice.slice is None or not evidence.annotated[choice.slice] or evidence.doubtful[choice.slice]
    assert choice.reason and np.isfinite(choice.score) and choice.strategy in STRATEGIES
    assert (choice.slice is None) == ("good enough" in choice.reason)


@given(evidences(), st.floats(0, 1))
def test_value_equals_brute_force(evidence, rho):
    numbers = range(len(evidence.quality))
    said = [n for n in numbers if evidence.annotated[n]]

    def brute(z):
        total = 0.0
        for other in numbers:
            nearer = all(abs(other - z) < abs(other - n) for n in said)
            total += evidence.wrong[other] * rho ** abs(other - z) if nearer else 0.0
        return total

    assert values(evidence, rho=rho) == pytest.approx([brute(z) for z in numbers])


@given(st.integers(3, 40), st.data())
def test_strided_halves_the_widest_gap(count, data):
    said = data.draw(st.sets(st.integers(0, count - 1), max_size=count - 1))
    borders = [-1, *sorted(said), count]
    widest = max(high - low - 1 for low, high in pairwise(borders))
    choice = suggest("strided", seen([0.5] * count, annotated=said))
    low = max(n for n in borders if n < choice.slice)
    high = min(n for n in borders if n > choice.slice)
    assert high - low - 1 == widest == choice.score
    assert abs((choice.slice - low) - (high - choice.slice)) <= 1


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_a_clicked_slice_of_low_quality_comes_first_until_it_was_clicked_on_four_times(name):
    doubtful = seen([0.9, 0.7, 0.5, 0.9, 0.2], clicks={1: 1, 2: 3, 3: 1})
    choice = suggest(name, doubtful)
    assert choice.slice == 2 and "0.50" in choice.reason and "lock" in choice.reason
    assert best_of([choice, suggest("strided", seen([0.5] * 4, annotated=[0]))]) is choice
    assert suggest(name, seen([0.9, 0.7, 0.5, 0.9, 0.2], clicks={1: 4, 2: 4, 3: 1})).slice not in (1, 2, 3)
    assert suggest(name, seen([0.9, 0.7, 0.5, 0.9, 0.2], annotated=[1, 2, 3])).slice not in (1, 2, 3)


def test_strided_takes_the_nearest_free_slice_where_no_lane_reached_the_middle():
    assert suggest("strided", seen([0.5, 0.5, np.nan, np.nan, 0.5], area=[9] * 5)).slice == 1


def test_where_no_gap_is_left_strided_looks_past_both_ends():
    area, said = [0, 0, 9, 9, 0, 0], [2, 3]
    for beyond in (1, 4):
        choice = suggest("strided", seen([0.5] * 6, area=area, annotated=said))
        assert choice.slice == beyond and "past its end" in choice.reason
        said.append(beyond)
    assert suggest("strided", seen([0.5] * 6, area=area, annotated=said)).slice is None
    assert suggest("strided", seen([0.5] * 2, area=[9, 9], annotated=[0, 1])).slice is None


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_worst_is_the_slice_of_the_lowest_quality(quality):
    choice = suggest("worst", seen(quality))
    assert quality[choice.slice] == pytest.approx(min(quality)) and choice.score == pytest.approx(1 - min(quality))


def test_the_worst_slice_is_not_the_one_worth_most():
    quality = [0.1, 0.9, 0.9, 0.9, 0.9, 0.4, 0.3, 0.4, 0.9]
    evidence = seen(quality, annotated=[2])
    assert suggest("worst", evidence).slice == 0 and suggest("value", evidence).slice == 6


def test_a_slice_seen_differently_from_both_sides_is_asked_about():
    agreement = [np.nan, 0.95, 0.4, 0.9, np.nan]
    choice = suggest("disagree", seen([0.9] * 5, annotated=[0, 4], agreement=agreement))
    assert choice.slice == 2 and "0.40" in choice.reason and choice.strategy == "disagree"


def test_where_no_lanes_met_the_widest_gap_is_taken_instead_and_said():
    choice = suggest("disagree", seen([0.9] * 7, annotated=[0]))
    assert choice.slice == 3 and choice.strategy == "strided" and "two sides" in choice.reason


@pytest.mark.parametrize("name", ["worst", "value"])
def test_small_errors_end_it_only_where_qualities_are_calibrated(name):
    fine = [0.95, 0.97, 0.93]
    assert suggest(name, seen(fine, calibrated=True)).slice is None
    assert "good enough" in suggest(name, seen(fine, calibrated=True)).reason
    assert suggest(name, seen(fine)).slice is not None


@pytest.mark.parametrize("name", ["worst", "value"])
def test_slices_that_show_the_object_come_first_and_a_lost_object_keeps_it_from_being_good_enough(name):
    bad, fine, area = [0.9, 0.6, 0.9, 0.2], [0.97, 0.97, 0.97, 0.2], [9, 9, 9, 0]
    assert suggest(name, seen(bad, area=area, calibrated=True)).slice in (0, 1, 2)
    lost = suggest(name, seen(fine, area=area, calibrated=True))
    assert lost.slice == 3 and "lost there" in lost.reason


def test_a_gain_below_the_cost_of_a_look_ends_it(monkeypatch):
    evidence = seen([0.85, 0.99, 0.99], calibrated=True)
    assert suggest("value", evidence).slice is None
    monkeypatch.setattr(slices, "LOOK_COST", 0.1)
    assert suggest("value", evidence).slice == 0


def test_of_several_objects_the_one_most_worth_a_look():
    none = SliceChoice(None, "good enough: x", 0.0, "value")
    low, high = SliceChoice(3, "a", 0.2, "value"), SliceChoice(1, "b", 0.4, "value")
    assert best_of([none, low, high]) is high and best_of([none]) is none and best_of([]) is None


def test_an_unknown_strategy_is_named_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"'wurst'.*strided, worst"):
        suggest("wurst", seen([0.5]))


def test_evidence_of_different_lengths_is_refused():
    with pytest.raises(ConfigError, match="one length"):
        SliceEvidence(*[np.zeros(3)] * 4, np.zeros(2))


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        ({"agreement": [np.nan, 0.3, np.nan]}, "agree only to Dice 0.30"),
        ({"area": [10, 5, 10]}, "the area changes by 50%"),
        ({"area": [10, 0, 0]}, "may have been lost"),
        ({}, "least accurate"),
    ],
)
def test_the_reason_names_what_is_striking(given, cause):
    evidence = seen([0.9, 0.1, 0.9], annotated=[0, 2], **given)
    assert cause in suggest("worst", evidence).reason and cause in suggest("value", evidence).reason
