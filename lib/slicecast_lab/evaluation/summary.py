"""What the cases of an evaluation say together, as JSON values."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from slicecast.errors import ConfigError
from slicecast.volume.metrics import bootstrap_mean, click_auc, clicks_to_reach
from slicecast_lab.evaluation.mistakes import KINDS
from slicecast_lab.evaluation.run import CaseResult, Evaluation

GOAL_DICE = 0.85
"""Clicks are counted until the volume's Dice reaches this."""

DIGITS = 4


def summarise(evaluation: Evaluation) -> dict[str, Any]:
    """Return means with intervals, click measures, corrections, baselines, seconds and memory.

    Raises:
        ConfigError: no case could be evaluated.
    """
    results = evaluation.results
    if not results:
        why = next(iter(evaluation.skipped.values()), "there were none")
        raise ConfigError(f"No case could be evaluated; the first reason: {why}")
    settings = evaluation.settings
    return {
        "dice": _mean(results, (r.final_dice for r in results)),
        "dice_elsewhere": _mean(results, (r.dice_elsewhere for r in results)),
        "nsd": _mean(results, (r.surface.nsd for r in results)),
        "hd95": _mean(results, (r.surface.hd95 for r in results)),
        "hd95_undefined": sum(r.surface.hd95 is None for r in results),
        "mistakes": {kind: _round(float(np.mean([r.mistakes[kind] for r in results]))) for kind in KINDS},
        "unit": settings.unit,
        "clicks": _clicks(results) if settings.prompt == "clicks" else None,
        "corrections": {
            who: _by_step(results, [r.corrections[who] for r in results]) for who in results[0].corrections
        },
        "baselines": {name: _baseline(results, name) for name in settings.baselines},
        "seconds_first": _percentiles([r.seconds[0] for r in results]),
        "seconds_next": _percentiles([s for r in results for s in (*r.seconds[1:], *r.correction_seconds)]),
        "peak_rss_mib": round(evaluation.peak_rss_mib),
        "cases": len(results),
        "groups": len({r.files.group for r in results}),
    }


def describe_case(result: CaseResult) -> dict[str, Any]:
    """Return one case as JSON values."""
    return {
        "id": result.files.id,
        "group": result.files.group,
        "axis": result.axis,
        "slice": result.slice,
        "dice": [_round(value) for value in result.dice],
        "interactions": result.clicks_used,
        "dice_elsewhere": _round(result.dice_elsewhere),
        "nsd": _round(result.surface.nsd),
        "hd95": None if result.surface.hd95 is None else _round(result.surface.hd95),
        "seconds": [_round(value) for value in result.seconds],
        "corrections": {who: [_round(value) for value in steps] for who, steps in result.corrections.items()},
        "correction_seconds": [_round(value) for value in result.correction_seconds],
        "baselines": {name: _round(value) for name, value in result.baselines.items()},
        "mistakes": {kind: _round(value) for kind, value in result.mistakes.items()},
    }


def _mean(results: Sequence[CaseResult], values: Iterable[float | None]) -> dict[str, Any] | None:
    """Return the mean, with its interval, of the cases that have a value; None where none has."""
    known = [(value, r.files.group) for value, r in zip(values, results, strict=True) if value is not None]
    if not known:
        return None
    mean = bootstrap_mean([value for value, _ in known], [group for _, group in known])
    return {name: _round(number) for name, number in asdict(mean).items()}


def _by_step(results: Sequence[CaseResult], courses: Sequence[Sequence[float]]) -> list[dict[str, Any] | None]:
    """Return the mean after each interaction."""
    return [_mean(results, values) for values in zip(*courses, strict=True)]


def _clicks(results: Sequence[CaseResult]) -> dict[str, Any]:
    reached = [clicks_to_reach(r.dice, GOAL_DICE) for r in results]
    count = len(results[0].dice)
    return {
        "dice_by_click": _by_step(results, [r.dice for r in results]),
        "auc": _mean(results, (click_auc(r.dice) for r in results)),
        "goal": GOAL_DICE,
        # As usual, a case that never gets there counts with all clicks that were allowed.
        "noc": _round(float(np.mean([count if n is None else n for n in reached]))),
        "failure_rate": _round(float(np.mean([n is None for n in reached]))),
    }


def _baseline(results: Sequence[CaseResult], name: str) -> dict[str, Any]:
    return {
        "dice": _mean(results, (r.baselines[name] for r in results)),
        "difference": _mean(results, (r.final_dice - r.baselines[name] for r in results)),
    }


def _percentiles(seconds: Sequence[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    p50, p95 = np.percentile(seconds, [50, 95])
    return {"p50": _round(float(p50)), "p95": _round(float(p95))}


def _round(number: float) -> float:
    return round(number, DIGITS)
