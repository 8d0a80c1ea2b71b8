"""Laws of areas, counts and intervals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slicecast.errors import ConfigError
from slicecast_lab.simulation.summary import at_effort, aubc, captured_gap, crossed_mean, steps_to

shares = st.floats(0, 1)
axes = st.lists(st.integers(0, 1000), min_size=1, max_size=9, unique=True).map(sorted)


@given(axes, shares)
def test_the_area_of_a_constant_is_the_constant(budgets, value):
    assert aubc(budgets, [value] * len(budgets)) == pytest.approx(value)


@given(axes, st.floats(0.1, 50), st.data())
def test_the_area_does_not_depend_on_the_unit_of_the_axis(budgets, unit, data):
    values = data.draw(st.lists(shares, min_size=len(budgets), max_size=len(budgets)))
    assert aubc([b * unit for b in budgets], values) == pytest.approx(aubc(budgets, values))


def test_a_rising_line_has_half_the_area():
    assert aubc([0, 1, 4], [0, 0.25, 1]) == pytest.approx(0.5)


@pytest.mark.parametrize(("budgets", "values"), [([2, 1], [0, 0]), ([1, 1], [0, 0]), ([1, 2], [0]), ([], [])])
def test_an_axis_that_does_not_ascend_is_refused(budgets, values):
    with pytest.raises(ConfigError):
        aubc(budgets, values)


def test_a_result_counts_from_when_it_was_paid_for():
    assert at_effort([10, 30], [0.5, 0.8], [0, 9, 10, 29, 30, 99]).tolist() == [0, 0, 0.5, 0.5, 0.8, 0.8]


def test_steps_are_counted_to_the_first_time():
    assert steps_to([0.5, 0.9, 0.7], 0.85).steps == 2
    never = steps_to([0.5, 0.6, 0.7], 0.85)
    assert never.steps == 3 and not never.reached


def test_the_interval_holds_both_seeds_and_cases(rng):
    per_seed, per_case = rng.normal(0, 1, (8, 1)), rng.normal(0, 1, (1, 30))

    def width(table):
        mean = crossed_mean(table)
        assert mean.low < mean.value < mean.high
        return mean.high - mean.low

    both = width(per_seed + per_case)
    assert both > width(per_seed + np.zeros((8, 30))) and both > width(np.zeros((8, 1)) + per_case)


def test_the_interval_draws_whole_groups(rng):
    by_patient = np.repeat(rng.normal(0, 1, 10), 2)[None]
    alone, grouped = crossed_mean(by_patient), crossed_mean(by_patient, [f"p{n // 2}" for n in range(20)])
    assert grouped.high - grouped.low > 1.2 * (alone.high - alone.low)


def test_the_gap_is_covered_in_part_or_there_is_none(rng):
    random = rng.normal(0.5, 0.01, (6, 12))
    assert captured_gap(random + 0.05, random, random + 0.1) == pytest.approx(0.5)
    assert captured_gap(random, random, random + rng.normal(0, 0.01, random.shape) - 0.02) is None
