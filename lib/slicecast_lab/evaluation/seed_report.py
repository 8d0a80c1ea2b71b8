"""The published study: its sets, its rows, and JSON and tables of its protocol, into which no other numbers are let."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from slicecast.errors import ConfigError
from slicecast_lab.evaluation.page import markdown
from slicecast_lab.evaluation.report import bootstrap_mean, measure_table, rounded, show_mean
from slicecast_lab.evaluation.seed import SeedEvaluation, SeedResult
from slicecast_lab.evaluation.settings import SEED_EXACT, SeedSettings

STUDY_PROMPTS = (("clicks", 1), ("clicks", 5), ("mask", 1))  # The rows of the study's table

STEPS = ("load", "prompt", "forward", "reverse")

Report = Mapping[str, Any]  # One evaluation, as `seed_as_json` writes it


@dataclass(frozen=True, slots=True)
class SeedSet:
    """One column of the published study's table: its name and the folders it is looked for in."""

    name: str
    folders: tuple[str, ...]


SEED_SETS = (
    SeedSet("BraTS2020", ("MICCAI_BraTS2020_TrainingData", "BraTS2020_TrainingData", "BraTS2020", "brats2020")),
    SeedSet("Spleen", ("Task09_Spleen",)),
    SeedSet("Liver", ("Task03_Liver",)),
    SeedSet("Lung", ("Task06_Lung",)),
    SeedSet("Pancreas", ("Task07_Pancreas",)),
)


def find_seed_sets(root: Path) -> dict[str, Path]:
    """Return the folder of each set of the published study that lies in `root`, or one level deeper, by name.

    Raises:
        ConfigError: there is none.
    """
    found = {}
    for item in SEED_SETS:
        places = [p for name in item.folders for p in (root / name, *sorted(root.glob(f"*/{name}"))) if p.is_dir()]
        if places:
            found[item.name] = places[0]
    if not found:
        wanted = ", ".join(item.folders[0] for item in SEED_SETS)
        raise ConfigError(f"{root} holds none of the study's sets. Put there one or more of {wanted}, as unpacked.")
    return found


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
        "protocol": SEED_EXACT,
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
    count = report["summary"]["cases"]
    title = f"{report['set']}: {report['settings']['prompt']}, {count} cases, protocol {SEED_EXACT}"
    return measure_table(title, _measures(report["summary"]))


def _measures(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "Dice over the clip", show_mean(summary["dice"])
    yield "NSD at 1 voxel, order of visits", show_mean(summary["nsd"])
    for step in STEPS:
        yield f"seconds, {step}, mean", f"{summary['seconds'][step]:.2f}"
    yield "peak memory, MiB", str(summary["peak_rss_mib"])


def study_table(reports: Sequence[Report], *, columns: Sequence[str]) -> str:
    """Write the study's table as Markdown: a row for each model and prompt, a column for each set; mean Dice.

    Raises:
        ConfigError: a report is of another protocol.
    """
    for report in reports:
        if report["protocol"] != SEED_EXACT:
            raise ConfigError(
                f"A report of protocol {report['protocol']!r} does not belong in a table of {SEED_EXACT}."
            )
    frame = pd.DataFrame([_cell(report) for report in reports])
    drawn = frame.pivot_table("cell", ["model", "prompt"], "set", aggfunc="last", sort=False)
    return markdown(drawn.reindex(columns=list(columns)).fillna("-").reset_index())


def _cell(report: Report) -> dict[str, str]:
    summary = report["summary"]
    kind, _, count = report["settings"]["prompt"].partition(":")
    return {
        "model": report["circumstances"]["model"]["name"],
        "prompt": f"{count} click{'s' * (count != '1')}" if count else f"1 {kind}",
        "set": report["set"],
        "cell": f"{show_mean(summary['dice'])}, {summary['cases']} cases",
    }


def study_settings(salient: int) -> list[SeedSettings]:
    """Return the settings of the study's rows."""
    return [SeedSettings(prompt=kind, clicks=clicks, salient=salient) for kind, clicks in STUDY_PROMPTS]  # type: ignore[arg-type]


def _summarise(evaluation: SeedEvaluation) -> dict[str, Any]:
    results = evaluation.results
    if not results:
        why = next(iter(evaluation.skipped.values()), "there were none")
        raise ConfigError(f"No case could be evaluated; the first reason: {why}")
    return {
        "dice": rounded(bootstrap_mean([r.dice for r in results])),
        "nsd": rounded(bootstrap_mean([r.nsd for r in results])),
        "seconds": {step: round(sum(r.seconds[step] for r in results) / len(results), 4) for step in STEPS},
        "slices": sum(r.visited for r in results),
        "peak_rss_mib": evaluation.peak_rss_mib,
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
