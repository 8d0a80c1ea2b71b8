"""Measure engines on the accuracy page's sets from five clicks on a slice, and write the page's comparison.

    python -m slicecast_lab.benchmarks.engines  # every engine whose weights are on this machine
    python -m slicecast_lab.benchmarks.engines --only hippocampus --engine sam2_nano --engine ct_sam3d_nano

Set by set, engine by engine; what was measured with the same weights is kept in build/results/engines/, so a run that
was stopped goes on. `--render` writes the table again from there.
"""

import argparse
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from slicecast.config import data_dir
from slicecast.models.weights import is_present, pinned
from slicecast_lab.benchmarks.accuracy import CLICKS, GOALS, ROOT, Goal
from slicecast_lab.evaluation.engine_table import engine_cells
from slicecast_lab.evaluation.engines import open_engine
from slicecast_lab.evaluation.page import markdown, source_line, write_blocks
from slicecast_lab.evaluation.provenance import command_line
from slicecast_lab.evaluation.report import as_json, write_json
from slicecast_lab.evaluation.run import evaluate
from slicecast_lab.evaluation.settings import Settings, named_specs, parse_prompt

SAM2, VOLUMETRIC = "sam2_nano", ("ct_sam3d_nano", "sam_med3d_nano")
ENGINES = (SAM2, *VOLUMETRIC, *(f"{SAM2}+{name}" for name in VOLUMETRIC), f"{SAM2}+axes")
"""What is compared; the first one is what the others are set against."""


def measure(goal: Goal, name: str, file: Path, *, command: str, limit: int) -> None:
    """Measure one engine on one set, and write JSON."""
    kind, clicks = parse_prompt(CLICKS)
    engine = open_engine(name)
    done = evaluate(goal.cases(limit=limit), engine.service, Settings(prompt=kind, clicks=clicks, unit=goal.unit))
    write_json(as_json(done, engine.provenance(command)), file)


def report_file(build: Path, goal: Goal, name: str) -> Path:
    """Return where an engine's JSON for a set lies."""
    return build / f"{goal.key}-{name}.json"


def read_reports(build: Path, names: Sequence[str] = ENGINES) -> dict[str, list[dict[str, Any]]]:
    """Return what was measured, by set, in the order of the engines."""
    files = {goal.title: [report_file(build, goal, name) for name in names] for goal in GOALS}
    found = {title: [json.loads(f.read_text("utf-8")) for f in own if f.is_file()] for title, own in files.items()}
    return {title: reports for title, reports in found.items() if reports}


def block(reports: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Return the table with where its numbers come from."""
    table = markdown(cells for title, own in reports.items() for cells in rows(title, own))
    circumstances = {r["circumstances"]["model"]["name"]: r["circumstances"] for own in reports.values() for r in own}
    return "\n".join([table, "", *(f"* {source_line(source)}" for source in circumstances.values())])


def rows(title: str, reports: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    """Yield a set's rows."""
    for report, cells in zip(reports, engine_cells(reports), strict=True):
        yield {"set": title, "cases": str(report["summary"]["cases"]), **cells}


def _is_ready(name: str) -> bool:
    return all(is_present(spec) for spec in named_specs(name))


def _is_measured(file: Path, name: str) -> bool:
    if not file.is_file():
        return False
    known = "+".join(str(pinned(spec).sha256) for spec in named_specs(name))
    return json.loads(file.read_text("utf-8"))["circumstances"]["model"]["sha256"] == known


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--engine", action="append", default=[], help="repeatable; default: all that are ready")
    parser.add_argument("--only", action="append", default=[], choices=[goal.key for goal in GOALS], help="repeatable")
    parser.add_argument("--limit", type=int, default=0, help="at most so many cases a set")
    parser.add_argument("--render", action="store_true", help="measure nothing, write the page again")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "results" / "engines", help="folder for JSON")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "results" / "accuracy.md")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("slicecast").setLevel(logging.ERROR)
    names = asked.engine or [name for name in ENGINES if _is_ready(name)]
    goals = [g for g in GOALS if (not asked.only or g.key in asked.only) and (data_dir() / g.folder).is_dir()]
    command = command_line("python -m slicecast_lab.benchmarks.engines")
    for goal, name in () if asked.render else [(goal, name) for goal in goals for name in names]:
        file = report_file(asked.build, goal, name)
        if not _is_measured(file, name):
            measure(goal, name, file, command=command, limit=asked.limit)
            print(file, flush=True)
    reports = read_reports(asked.build)
    if not reports:
        raise SystemExit("Nothing was measured: no set in SLICECAST_DATA, or no engine with weights.")
    write_blocks(asked.page, {"engines": block(reports)})
    print(asked.page)


if __name__ == "__main__":
    main()
