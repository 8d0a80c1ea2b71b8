"""What the cases of an evaluation say together: JSON values, and tables for a terminal."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from slicecast.errors import ConfigError
from slicecast_lab.evaluation.run import MISTAKES, CaseResult, Evaluation
from slicecast_lab.evaluation.settings import FIXED, Settings

GOAL_DICE = 0.85  # Clicks are counted until the volume's Dice reaches this

DIGITS = 4

AUC_CLICKS = 5  # The challenge's area is that under Dice over the first five clicks: at most 4

RESAMPLES = 10_000
SEED = 20240805  # Of the bootstrap


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float
    count: int


def bootstrap_mean(
    values: Sequence[float], groups: Sequence[str] | None = None, *, resamples: int = RESAMPLES, seed: int = SEED
) -> Mean:
    """Return the mean and its 95 % percentile interval, drawing whole groups with replacement.

    Args:
        groups: of each value (its patient); None: each value is its own.
    """
    numbers = np.asarray(values, dtype=float)
    names = np.arange(len(numbers)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    sums, counts = np.bincount(names, weights=numbers), np.bincount(names)
    drawn = np.random.default_rng(seed).integers(len(sums), size=(resamples, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Mean(float(numbers.mean()), float(low), float(high), len(numbers))


def click_auc(dice_by_click: Sequence[float]) -> float | None:
    """Return the area under Dice over clicks 1 to 5, or None with fewer clicks."""
    if len(dice_by_click) < AUC_CLICKS:
        return None
    first = np.asarray(dice_by_click[:AUC_CLICKS])
    return float((first[1:] + first[:-1]).sum() / 2)


def clicks_to_reach(dice_by_click: Sequence[float], goal: float) -> int | None:
    """Return after how many clicks the goal was first reached, or None."""
    return next((n for n, value in enumerate(dice_by_click, start=1) if value >= goal), None)


def as_json(evaluation: Evaluation, circumstances: dict[str, Any]) -> dict[str, Any]:
    """Return all of an evaluation as JSON values; `circumstances` is from `provenance`."""
    return {
        "circumstances": circumstances,
        "protocol": FIXED,
        "settings": describe_settings(evaluation.settings),
        "summary": summarise(evaluation),
        "cases": [describe_case(result) for result in evaluation.results],
        "skipped": evaluation.skipped,
    }


def write_json(content: dict[str, Any], file: Path) -> None:
    """Write JSON; the file appears whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    part.replace(file)


def describe_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings as JSON values."""
    return {
        "prompt": settings.prompt_words,
        "slice": settings.slice,
        "corrections": settings.corrections,
        "every": list(settings.every),
        "baselines": list(settings.baselines),
        "unit": settings.unit,
    }


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
        "mistakes": {kind: _round(float(np.mean([r.mistakes[kind] for r in results]))) for kind in MISTAKES},
        "unit": settings.unit,
        "clicks": _clicks(results) if settings.prompt == "clicks" else None,
        "corrections": {
            who: _by_step(results, [r.corrections[who] for r in results]) for who in results[0].corrections
        },
        "painted": {str(step): _interpolations(results, step) for step in settings.every},
        "baselines": {name: _baseline(results, name) for name in settings.baselines},
        "seconds_first": _percentiles([r.seconds[0] for r in results]),
        "seconds_next": _percentiles([s for r in results for s in (*r.seconds[1:], *r.correction_seconds)]),
        "peak_rss_mib": evaluation.peak_rss_mib,
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
        "painted": {str(step): {n: _round(v) for n, v in found.items()} for step, found in result.painted.items()},
        "baselines": {name: _round(value) for name, value in result.baselines.items()},
        "mistakes": {kind: _round(value) for kind, value in result.mistakes.items()},
    }


def rounded(mean: Mean) -> dict[str, Any]:
    """Return a mean with its interval as JSON values."""
    return {name: round(value, DIGITS) for name, value in asdict(mean).items()}


def show_mean(mean: dict[str, Any] | None, digits: int = 3) -> str:
    """Write a mean with its interval: ``0.812 (0.790 to 0.831)``."""
    if mean is None:
        return "-"
    return f"{mean['value']:.{digits}f} ({mean['low']:.{digits}f} to {mean['high']:.{digits}f})"


def summary_table(summary: dict[str, Any], settings: Settings) -> Table:
    """Draw the summary for a terminal."""
    title = f"{settings.prompt_words} on the {settings.slice} slice, {summary['cases']} cases, protocol {FIXED}"
    return measure_table(title, _rows(summary))


def measure_table(title: str, rows: Iterable[tuple[str, str]]) -> Table:
    """Draw measures and their values for a terminal."""
    table = Table(title=title, caption="mean (95 % bootstrap interval)", title_justify="left")
    table.add_column("measure", no_wrap=True)
    table.add_column("value", no_wrap=True)
    for name, value in rows:
        table.add_row(name, value)
    return table


def _rows(summary: dict[str, Any]) -> Iterator[tuple[str, str]]:
    unit = summary["unit"]
    yield "Dice", show_mean(summary["dice"])
    yield "Dice without the prompted slice", show_mean(summary["dice_elsewhere"])
    yield f"NSD at 2 {unit}", show_mean(summary["nsd"])
    undefined = summary["hd95_undefined"]
    yield f"HD95, {unit}", show_mean(summary["hd95"], 1) + (f", undefined in {undefined}" if undefined else "")
    yield from _click_rows(summary["clicks"])
    for who, steps in summary["corrections"].items():
        yield f"Dice, slices corrected: {who}", " > ".join(f"{step['value']:.3f}" for step in steps)
    for step, found in summary["painted"].items():
        yield f"Dice, every {step}th slice painted", show_mean(found["model"])
    for name, baseline in summary["baselines"].items():
        yield f"baseline {name}, Dice", show_mean(baseline["dice"])
        yield f"  model minus {name}, paired", show_mean(baseline["difference"])
    for key, name in (("seconds_first", "first"), ("seconds_next", "next")):
        if summary[key] is not None:
            yield f"seconds, {name} interaction", "p50 {p50:.2f}, p95 {p95:.2f}".format(**summary[key])
    yield "peak memory, MiB", str(summary["peak_rss_mib"])


def _click_rows(clicks: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
    if clicks is None:
        return
    yield "Dice by click", " > ".join(f"{step['value']:.3f}" for step in clicks["dice_by_click"])
    if clicks["auc"] is not None:
        yield "AUC over clicks 1 to 5, of 4", show_mean(clicks["auc"])
    yield f"clicks to Dice {clicks['goal']}", f"{clicks['noc']:.2f}"
    yield "cases that never get there", f"{clicks['failure_rate']:.0%}"


def _mean(results: Sequence[CaseResult], values: Iterable[float | None]) -> dict[str, Any] | None:
    """Return the mean, with its interval, of the cases that have a value; None where none has."""
    known = [(value, r.files.group) for value, r in zip(values, results, strict=True) if value is not None]
    if not known:
        return None
    return rounded(bootstrap_mean([value for value, _ in known], [group for _, group in known]))


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
    return _beside(results, [r.final_dice for r in results], [r.baselines[name] for r in results])


def _interpolations(results: Sequence[CaseResult], step: int) -> dict[str, Any]:
    """Return the model's mean with every `step`-th slice painted, and each interpolation's beside it."""
    own, *names = results[0].painted[step]
    model = [r.painted[step][own] for r in results]
    beside = {name: _beside(results, model, [r.painted[step][name] for r in results]) for name in names}
    return {own: _mean(results, model), **beside}


def _beside(results: Sequence[CaseResult], model: Sequence[float], other: Sequence[float]) -> dict[str, Any]:
    differences = (one - another for one, another in zip(model, other, strict=True))
    return {"dice": _mean(results, other), "difference": _mean(results, differences)}


def _percentiles(seconds: Sequence[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    p50, p95 = np.percentile(seconds, [50, 95])
    return {"p50": _round(float(p50)), "p95": _round(float(p95))}


def _round(number: float) -> float:
    return round(number, DIGITS)
