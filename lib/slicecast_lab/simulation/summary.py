"""What simulations say together, as JSON values: curves, slice strategies (E2), volume strategies (E1), both (E3)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import trapezoid

from slicecast.errors import ConfigError
from slicecast_lab.evaluation.report import DIGITS, GOAL_DICE, Mean, bootstrap_mean, rounded
from slicecast_lab.simulation.annotator import EFFORTS, Actions, EffortModel
from slicecast_lab.simulation.strategies import ORACLE
from slicecast_lab.simulation.volumes import Pool, SimulatedCampaign, VolumePlan

RESAMPLES = 4000
SEED = 20260121  # Of the bootstrap

DEVIATION = 1e-12

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Count:
    """How many steps it took."""

    steps: int  # the allowed number where the goal was never reached
    reached: bool  # whether it was


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


EFFORT_PLACES = 101  # Of the effort axis of one case, at which curves are read

Course = Mapping[str, Any]


def summarise_slices(results: Sequence[Mapping[str, Any]], *, corrections: int) -> dict[str, Any]:
    """Summarise each strategy; the first one is compared with each other, case by case.

    Args:
        results: of `SliceTask.run`.
    """
    names = list(results[0]["courses"])
    groups = [case["group"] for case in results]
    courses = {name: [case["courses"][name] for case in results] for name in names}
    wanted = corrections + 1
    return {
        "cases": len(results),
        "groups": len(set(groups)),
        "goal": GOAL_DICE,
        "slices": list(range(1, wanted + 1)),
        "strategies": {name: _strategy(courses[name], groups, wanted) for name in names},
        "first_against": {
            name: _paired(courses[names[0]], courses[name], groups, wanted) for name in names if name != names[0]
        },
    }


def dice_curve(course: Course, wanted: int) -> list[float]:
    """Return Dice after each annotated slice; who has no more to ask stays where it is."""
    values = [step["dice"] for step in course["steps"]]
    return [*values, *[values[-1]] * (wanted - len(values))]


def effort_curve(course: Course, model: EffortModel) -> tuple[list[float], list[float]]:
    """Return the seconds spent by each step, and its Dice."""
    done, seconds = Actions(), []
    for step in course["steps"]:
        done += Actions(*step["actions"])
        seconds.append(model.seconds(done))
    return seconds, [step["dice"] for step in course["steps"]]


def effort_aubc(course: Course, model: EffortModel, horizon_s: float) -> float:
    """Return the area under Dice against seconds, from 0 to the horizon, as a share of it."""
    grid = np.linspace(0.0, horizon_s, EFFORT_PLACES)
    return aubc(grid.tolist(), at_effort(*effort_curve(course, model), grid.tolist()).tolist())


def seconds_to(course: Course, model: EffortModel, goal: float) -> float:
    """Return the seconds until the goal, or all that was spent."""
    seconds, values = effort_curve(course, model)
    return next((at for at, value in zip(seconds, values, strict=True) if value >= goal), seconds[-1])


def _strategy(courses: Sequence[Course], groups: Sequence[str], wanted: int) -> dict[str, Any]:
    counts = [steps_to(dice_curve(course, wanted), GOAL_DICE) for course in courses]
    return {
        "dice": [_spread([dice_curve(c, wanted)[n] for c in courses], groups) for n in range(wanted)],
        "aubc": _spread([_area(course, wanted) for course in courses], groups),
        "slices_to_goal": _spread([count.steps for count in counts], groups),
        "never": round(float(np.mean([not count.reached for count in counts])), DIGITS),
        "annotated": round(float(np.mean([len(course["steps"]) for course in courses])), DIGITS),
        "effort": {name: _effort(courses, groups, model, wanted) for name, model in EFFORTS.items()},
    }


def _effort(courses: Sequence[Course], groups: Sequence[str], model: EffortModel, wanted: int) -> dict[str, Any]:
    horizon = _horizon(model, wanted)
    return {
        "aubc": _spread([effort_aubc(course, model, horizon) for course in courses], groups),
        "seconds_to_goal": _spread([seconds_to(course, model, GOAL_DICE) for course in courses], groups),
    }


def _paired(
    first: Sequence[Course], other: Sequence[Course], groups: Sequence[str], wanted: int
) -> dict[str, dict[str, Any]]:
    """Return the mean differences (first minus other) of paired cases."""

    def paired(measure: Callable[[Course], float]) -> dict[str, Any]:
        return _spread([measure(a) - measure(b) for a, b in zip(first, other, strict=True)], groups)

    efforts = {
        f"effort_aubc, {name}": paired(lambda c, m=model: effort_aubc(c, m, _horizon(m, wanted)))  # type: ignore[misc]
        for name, model in EFFORTS.items()
    }
    return {
        "aubc": paired(lambda course: _area(course, wanted)),
        "slices_to_goal": paired(lambda course: steps_to(dice_curve(course, wanted), GOAL_DICE).steps),
        "seconds_to_goal": paired(lambda course: seconds_to(course, EFFORTS["as given"], GOAL_DICE)),
        **efforts,
    }


def _area(course: Course, wanted: int) -> float:
    return aubc(range(1, wanted + 1), dice_curve(course, wanted))


def _horizon(model: EffortModel, wanted: int) -> float:
    """Return the seconds that painting every slice of the budget takes: one axis for all strategies."""
    return model.seconds(Actions(looks=wanted, masks=wanted))


def _spread(values: Sequence[float], groups: Sequence[str]) -> dict[str, Any]:
    return rounded(bootstrap_mean(values, groups))


MARGIN = 0.005  # AUBC by which a strategy may be worse and still count as not inferior; fixed before the first run

REFERENCE, CHANCE = "strat_random", "random"

JOINT_PLACES = 25  # Of the effort axis of campaigns
Tables = Mapping[str, NDArray[np.float64]]  # By strategy, (seeds, cases)


def summarise_volumes(
    pool: Pool, plan: VolumePlan, campaigns: Sequence[SimulatedCampaign], groups: Sequence[str]
) -> dict[str, Any]:
    """Summarise E1.

    Args:
        groups: of each query (its patient).
    """
    curves = {name: _curves(pool, plan, campaigns, name) for name in plan.strategies}
    positive = [n for n, budget in enumerate(plan.budgets) if budget > 0]
    budgets = [plan.budgets[n] for n in positive]
    areas = {name: _areas(table[:, positive], budgets) for name, table in curves.items()}
    reference = REFERENCE if REFERENCE in areas else plan.strategies[0]
    return {
        "queries": pool.table.shape[1],
        "pool": len(pool.cases),
        "budgets": list(plan.budgets),
        "reference": reference,
        "margin": MARGIN,
        "headroom": _headroom(areas, groups),
        "every_label": rounded(crossed_mean(pool.quality(range(len(pool.cases)))[None], groups)),
        "best_label": rounded(crossed_mean(pool.table.max(axis=0)[None], groups)),
        "strategies": {
            name: {
                "dice": [rounded(crossed_mean(curves[name][:, n], groups)) for n in range(len(plan.budgets))],
                "aubc": rounded(crossed_mean(areas[name], groups)),
                "aubc_by_seed": [round(float(value), DIGITS) for value in areas[name].mean(axis=1)],
                "against_reference": _against(areas, name, reference, groups),
                "captured": _captured(areas, name),
                "selected": [_ids(pool, c) for c in campaigns if c.strategy == name],
            }
            for name in plan.strategies
        },
    }


def summarise_joint(
    runs: Mapping[str, tuple[Pool, Sequence[SimulatedCampaign]]], plan: VolumePlan, groups: Sequence[str]
) -> dict[str, Any]:
    """Summarise E3: each pair of a volume and a slice strategy, against seconds.

    Args:
        runs: pool and campaigns by slice strategy.
    """
    efforts = {name: _joint_summary(runs, plan, model, groups) for name, model in EFFORTS.items()}
    labels = {slices: _label_costs(pool) for slices, (pool, _) in runs.items()}
    return {"budget": plan.budgets[-1], "seeds": plan.seeds, "labels": labels, "efforts": efforts}


def _curves(pool: Pool, plan: VolumePlan, campaigns: Sequence[SimulatedCampaign], name: str) -> NDArray[np.float64]:
    """Return (seeds, budgets, cases)."""
    own = [campaign for campaign in campaigns if campaign.strategy == name]
    return np.array([[pool.quality(c.labelled[:budget]) for budget in plan.budgets] for c in own])


def _areas(curves: NDArray[np.float64], budgets: Sequence[float]) -> NDArray[np.float64]:
    """Return the area under each curve, (seeds, cases), of (seeds, budgets, cases)."""
    return np.array([[aubc(budgets, values) for values in campaign.T] for campaign in curves])


def _headroom(areas: Tables, groups: Sequence[str]) -> dict[str, Any] | None:
    """Return by how much the oracle is better than chance, or None where not both were run."""
    if ORACLE not in areas or CHANCE not in areas:
        return None
    return rounded(crossed_mean(areas[ORACLE] - areas[CHANCE], groups))


def _captured(areas: Tables, name: str) -> float | None:
    if ORACLE not in areas or CHANCE not in areas:
        return None
    share = captured_gap(areas[name], areas[CHANCE], areas[ORACLE])
    return None if share is None else round(share, DIGITS)


def _against(areas: Tables, name: str, reference: str, groups: Sequence[str]) -> dict[str, Any] | None:
    """Return the paired difference to the reference, and whether it shows that this one is not inferior."""
    if name == reference:
        return None
    difference = crossed_mean(areas[name] - areas[reference], groups)
    return {**rounded(difference), "not_inferior": bool(difference.low > -MARGIN)}


def _ids(pool: Pool, campaign: SimulatedCampaign) -> list[str]:
    return [pool.cases[n].id for n in campaign.labelled]


def _joint_summary(
    runs: Mapping[str, tuple[Pool, Sequence[SimulatedCampaign]]],
    plan: VolumePlan,
    model: EffortModel,
    groups: Sequence[str],
) -> dict[str, Any]:
    costs = {name: [model.seconds(Actions(*done)) for done in pool.actions] for name, (pool, _) in runs.items()}
    totals = [sum(costs[name][n] for n in c.labelled) for name, (_, campaigns) in runs.items() for c in campaigns]
    grid = np.linspace(0.0, min(totals), JOINT_PLACES)
    tables = {
        f"{volumes} + {slices}": _against_effort(pool, campaigns, volumes, costs[slices], grid)
        for slices, (pool, campaigns) in runs.items()
        for volumes in plan.strategies
    }
    areas = {name: _areas(table, grid.tolist()) for name, table in tables.items()}
    first = next(iter(areas))
    return {
        "seconds": [round(float(at), 1) for at in grid],
        "reference": first,
        "strategies": {
            name: {
                "dice": [rounded(crossed_mean(table[:, n], groups)) for n in range(JOINT_PLACES)],
                "aubc": rounded(crossed_mean(areas[name], groups)),
                "against_reference": None
                if name == first
                else rounded(crossed_mean(areas[name] - areas[first], groups)),
            }
            for name, table in tables.items()
        },
    }


def _against_effort(
    pool: Pool, campaigns: Sequence[SimulatedCampaign], name: str, costs_s: Sequence[float], grid: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return (seeds, grid, cases): each label counts from when its work was done."""
    rows = []
    for campaign in (c for c in campaigns if c.strategy == name):
        seconds = np.cumsum([costs_s[n] for n in campaign.labelled]).tolist()
        after = [pool.quality(campaign.labelled[: n + 1]) for n in range(len(campaign.labelled))]
        columns = [at_effort(seconds, values, grid.tolist()) for values in np.array(after).T]
        rows.append(np.array(columns).T)
    return np.array(rows)


def _label_costs(pool: Pool) -> dict[str, Any]:
    """Return what a label cost and how good it was, on average."""
    done = np.mean(np.array(pool.actions, dtype=float), axis=0)
    return {
        "dice": round(float(np.mean(pool.label_dice)), DIGITS),
        "actions": dict(zip(("looks", "clicks", "boxes", "masks"), done.round(2).tolist(), strict=True)),
    }
