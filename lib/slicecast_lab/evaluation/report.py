"""Tables and JSON of an evaluation."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table

from slicecast_lab.evaluation.run import Evaluation
from slicecast_lab.evaluation.settings import Settings
from slicecast_lab.evaluation.summary import describe_case, summarise

PROTOCOL = "fixed"


def as_json(evaluation: Evaluation, circumstances: dict[str, Any]) -> dict[str, Any]:
    """Return all of an evaluation as JSON values; `circumstances` is from `provenance`."""
    return {
        "circumstances": circumstances,
        "protocol": PROTOCOL,
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
        "baselines": list(settings.baselines),
        "unit": settings.unit,
    }


def show_mean(mean: dict[str, Any] | None, digits: int = 3) -> str:
    """Write a mean with its interval: ``0.812 (0.790 to 0.831)``."""
    if mean is None:
        return "-"
    return f"{mean['value']:.{digits}f} ({mean['low']:.{digits}f} to {mean['high']:.{digits}f})"


def summary_table(summary: dict[str, Any], settings: Settings) -> Table:
    """Draw the summary for a terminal."""
    title = f"{settings.prompt_words} on the {settings.slice} slice, {summary['cases']} cases, protocol {PROTOCOL}"
    table = Table(title=title, caption="mean (95 % bootstrap interval)", title_justify="left")
    table.add_column("measure", no_wrap=True)
    table.add_column("value", no_wrap=True)
    for name, value in _rows(summary):
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
