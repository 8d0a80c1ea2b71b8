"""What campaigns say about volume strategies, as JSON values: on an axis of volumes (E1) and of seconds (E3)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicecast_lab.simulation.curves import at_effort, aubc, captured_gap, crossed_mean
from slicecast_lab.simulation.effort import EFFORTS, Actions, EffortModel
from slicecast_lab.simulation.slice_summary import rounded
from slicecast_lab.simulation.volumes import ORACLE, Campaign, Pool, VolumePlan

MARGIN = 0.005
"""AUBC by which a strategy may be worse and still count as not inferior; fixed before the first run."""

REFERENCE, CHANCE = "strat_random", "random"

GRID = 25
"""Places of the effort axis."""

DIGITS = 4

Tables = Mapping[str, NDArray[np.float64]]
"""By strategy, (seeds, cases)."""


def summarise_volumes(
    pool: Pool, plan: VolumePlan, campaigns: Sequence[Campaign], groups: Sequence[str]
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
    runs: Mapping[str, tuple[Pool, Sequence[Campaign]]], plan: VolumePlan, groups: Sequence[str]
) -> dict[str, Any]:
    """Summarise E3: each pair of a volume and a slice strategy, against seconds.

    Args:
        runs: pool and campaigns by slice strategy.
    """
    efforts = {name: _joint(runs, plan, model, groups) for name, model in EFFORTS.items()}
    labels = {slices: _labels(pool) for slices, (pool, _) in runs.items()}
    return {"budget": plan.budgets[-1], "seeds": plan.seeds, "labels": labels, "efforts": efforts}


def _curves(pool: Pool, plan: VolumePlan, campaigns: Sequence[Campaign], name: str) -> NDArray[np.float64]:
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


def _ids(pool: Pool, campaign: Campaign) -> list[str]:
    return [pool.cases[n].id for n in campaign.labelled]


def _joint(
    runs: Mapping[str, tuple[Pool, Sequence[Campaign]]], plan: VolumePlan, model: EffortModel, groups: Sequence[str]
) -> dict[str, Any]:
    costs = {name: [model.seconds(Actions(*done)) for done in pool.actions] for name, (pool, _) in runs.items()}
    totals = [sum(costs[name][n] for n in c.labelled) for name, (_, campaigns) in runs.items() for c in campaigns]
    grid = np.linspace(0.0, min(totals), GRID)
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
                "dice": [rounded(crossed_mean(table[:, n], groups)) for n in range(GRID)],
                "aubc": rounded(crossed_mean(areas[name], groups)),
                "against_reference": None
                if name == first
                else rounded(crossed_mean(areas[name] - areas[first], groups)),
            }
            for name, table in tables.items()
        },
    }


def _against_effort(
    pool: Pool, campaigns: Sequence[Campaign], name: str, costs_s: Sequence[float], grid: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return (seeds, grid, cases): each label counts from when its work was done."""
    rows = []
    for campaign in (c for c in campaigns if c.strategy == name):
        seconds = np.cumsum([costs_s[n] for n in campaign.labelled]).tolist()
        after = [pool.quality(campaign.labelled[: n + 1]) for n in range(len(campaign.labelled))]
        columns = [at_effort(seconds, values, grid.tolist()) for values in np.array(after).T]
        rows.append(np.array(columns).T)
    return np.array(rows)


def _labels(pool: Pool) -> dict[str, Any]:
    """Return what a label cost and how good it was, on average."""
    done = np.mean(np.array(pool.actions, dtype=float), axis=0)
    return {
        "dice": round(float(np.mean(pool.label_dice)), DIGITS),
        "actions": dict(zip(("looks", "clicks", "boxes", "masks"), done.round(2).tolist(), strict=True)),
    }
