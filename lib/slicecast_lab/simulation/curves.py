"""Curves of quality against cost: their area, when they reach a goal, and how they differ."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import trapezoid

from slicecast.errors import ConfigError
from slicecast.volume.metrics import Mean

RESAMPLES = 4000
SEED = 20260121
"""Of the bootstrap."""

DEVIATION = 1e-12

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Count:
    """How many steps it took.

    Args:
        steps: the allowed number where the goal was never reached.
        reached: whether it was.
    """

    steps: int
    reached: bool


def aubc(budgets: Sequence[float], values: Sequence[float]) -> float:
    """Return the area under a curve by trapezoids, the budgets stretched to 0 to 1; a constant's area is itself.

    Raises:
        ConfigError: the budgets do not ascend, or there is not one value for each.
    """
    x, y = np.asarray(budgets, dtype=float), np.asarray(values, dtype=float)
    if x.shape != y.shape or len(x) == 0 or (np.diff(x) <= 0).any():
        raise ConfigError(f"A curve needs ascending budgets and a value for each; given are {x} and {y}.")
    if len(x) == 1:
        return float(y[0])
    return float(trapezoid(y, x) / (x[-1] - x[0]))


def at_effort(seconds: Sequence[float], values: Sequence[float], grid: Sequence[float]) -> Floats:
    """Return what had been reached by each time of the grid: a result counts from when it was paid for, before 0.

    Args:
        seconds: when each value was reached, ascending.
    """
    when = np.searchsorted(np.asarray(seconds, dtype=float), np.asarray(grid, dtype=float) + DEVIATION, side="right")
    return np.concatenate([[0.0], np.asarray(values, dtype=float)])[when]


def steps_to(values: Sequence[float], goal: float) -> Count:
    """Count the steps until the goal was first reached; all of them where it never was."""
    for number, value in enumerate(values, start=1):
        if value >= goal:
            return Count(number, True)
    return Count(len(values), False)


def crossed_mean(table: Floats, groups: Sequence[str] | None = None, *, resamples: int = RESAMPLES) -> Mean:
    """Return the mean of a table (seeds, cases) and its 95 % interval, drawing seeds and groups of cases independently.

    Args:
        groups: of each case (its patient); None: each is its own.
    """
    values = np.atleast_2d(np.asarray(table, dtype=float))
    names = np.arange(values.shape[1]) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    per_group = np.stack([values[:, names == n].sum(axis=1) for n in range(names.max() + 1)], axis=1)
    sizes = np.bincount(names)
    rng = np.random.default_rng(SEED)
    rows = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), size=resamples)
    columns = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=resamples)
    sums = np.einsum("rs,sg,rg->r", rows, per_group, columns)
    means = sums / (len(values) * (columns @ sizes))
    low, high = np.percentile(means, [2.5, 97.5])
    return Mean(float(values.mean()), float(low), float(high), values.size)


def captured_gap(table: Floats, random: Floats, oracle: Floats) -> float | None:
    """Return the share of the distance from random to oracle that was covered; None where there is no headroom.

    There is none where the interval of (oracle - random) reaches 0. All tables are (seeds, cases).
    """
    if crossed_mean(oracle - random).low <= 0:
        return None
    return float((table - random).mean() / (oracle - random).mean())
