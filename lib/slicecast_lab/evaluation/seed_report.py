"""JSON and tables of the published protocol: tables of their own, into which no other numbers are let."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from slicecast.errors import ConfigError
from slicecast.volume.metrics import bootstrap_mean
from slicecast_lab.evaluation.page import table
from slicecast_lab.evaluation.report import show_mean
from slicecast_lab.evaluation.seed import PROTOCOL, SeedEvaluation, SeedResult, SeedSettings

STUDY_PROMPTS = (("clicks", 1), ("clicks", 5), ("mask", 1))
"""The rows of the study's table."""

STEPS = ("load", "prompt", "forward", "reverse")

Report = Mapping[str, Any]
"""One evaluation, as `seed_as_json` writes it."""


def seed_as_json(
    evaluation: SeedEvaluation, circumstances: dict[str, Any], *, set_name: str, fill_hole_area_px: int
) -> dict[str, Any]:
    """Return all of an evaluation as JSON values.

    Args:
        circumstances: from `provenance`.
        fill_hole_area_px: of the tracker: 0 where SAM 2's extension is missing.

    Raises:
        ConfigError: no case could be evaluated.
    """
    settings = evaluation.settings
    return {
        "circumstances": circumstances,
        "protocol": PROTOCOL,
        "set": set_name,
        "settings": {
            "prompt": settings.prompt_words,
            "salient": settings.salient,
            "seed": settings.seed,
            "fill_hole_area_px": fill_hole_area_px,
        },
        "summary": _summarise(evaluation),
        "cases": [_describe(result) for result in evaluation.results],
        "skipped": evaluation.skipped,
    }


def seed_summary_table(report: Report) -> Table:
    """Draw one evaluation for a terminal."""
    summary = report["summary"]
    drawn = Table(
        title=f"{report['set']}: {report['settings']['prompt']}, {summary['cases']} cases, protocol {PROTOCOL}",
        caption="mean (95 % bootstrap interval)",
        title_justify="left",
    )
    drawn.add_column("measure", no_wrap=True)
    drawn.add_column("value", no_wrap=True)
    drawn.add_row("Dice over the clip", show_mean(summary["dice"]))
    drawn.add_row("NSD at 1 voxel, order of visits", show_mean(summary["nsd"]))
    for step in STEPS:
        drawn.add_row(f"seconds, {step}, mean", f"{summary['seconds'][step]:.2f}")
    drawn.add_row("peak memory, MiB", str(summary["peak_rss_mib"]))
    return drawn


def study_table(reports: Sequence[Report], *, columns: Sequence[str]) -> str:
    """Write the study's table as Markdown: a row for each model and prompt, a column for each set; mean Dice.

    Raises:
        ConfigError: a report is of another protocol.
    """
    for report in reports:
        if report["protocol"] != PROTOCOL:
            raise ConfigError(f"A report of protocol {report['protocol']!r} does not belong in a table of {PROTOCOL}.")
    cells = {(_model(r), r["settings"]["prompt"], r["set"]): _cell(r) for r in reports}
    models = dict.fromkeys(_model(r) for r in reports)
    prompts = dict.fromkeys(r["settings"]["prompt"] for r in reports)
    rows = [
        [model, _words(prompt), *(cells.get((model, prompt, name), "-") for name in columns)]
        for model in models
        for prompt in prompts
    ]
    return table(["model", "prompt", *columns], rows)


def study_settings(salient: int) -> list[SeedSettings]:
    """Return the settings of the study's rows."""
    return [SeedSettings(prompt=kind, clicks=clicks, salient=salient) for kind, clicks in STUDY_PROMPTS]  # type: ignore[arg-type]


def _summarise(evaluation: SeedEvaluation) -> dict[str, Any]:
    results = evaluation.results
    if not results:
        why = next(iter(evaluation.skipped.values()), "there were none")
        raise ConfigError(f"No case could be evaluated; the first reason: {why}")
    return {
        "dice": _mean([r.dice for r in results]),
        "nsd": _mean([r.nsd for r in results]),
        "seconds": {step: round(sum(r.seconds[step] for r in results) / len(results), 4) for step in STEPS},
        "slices": sum(r.visited for r in results),
        "peak_rss_mib": round(evaluation.peak_rss_mib),
        "cases": len(results),
    }


def _describe(result: SeedResult) -> dict[str, Any]:
    return {
        "id": result.files.id,
        "slices": list(result.slices),
        "prompted": result.slices[0] + result.prompted,
        "clicks": result.clicks_used,
        "visited": result.visited,
        "dice": round(result.dice, 4),
        "nsd": round(result.nsd, 4),
        "seconds": {step: round(value, 4) for step, value in result.seconds.items()},
    }


def _mean(values: Sequence[float]) -> dict[str, Any]:
    mean = bootstrap_mean(values)
    return {
        "value": round(mean.value, 4),
        "low": round(mean.low, 4),
        "high": round(mean.high, 4),
        "count": mean.count,
    }


def _model(report: Report) -> str:
    return str(report["circumstances"]["model"]["name"])


def _cell(report: Report) -> str:
    summary = report["summary"]
    return f"{show_mean(summary['dice'])}, {summary['cases']} cases"


def _words(prompt: str) -> str:
    kind, _, count = prompt.partition(":")
    return f"1 {kind}" if not count else f"{count} click{'s' if count != '1' else ''}"
