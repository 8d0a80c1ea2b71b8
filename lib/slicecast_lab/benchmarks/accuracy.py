"""Measure the default model on real scans and write the tables of the accuracy page.

    python -m slicecast_lab.benchmarks.accuracy  # all test cases (make results)
    python -m slicecast_lab.benchmarks.accuracy --quick --jobs 2  # 20 hippocampus cases, no corrections

Sets come from SLICECAST_DATA (default ../shared/data); those that are absent are left out, and the page says so.
Everything measured is kept in build/results/; `--render` writes the tables again from there.
"""

import argparse
import json
import logging
import multiprocessing
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from slicecast.config import data_dir, project_dir
from slicecast.errors import ConfigError
from slicecast.inference.segment import SegmentService
from slicecast.models.sam2 import load_predictor
from slicecast.models.weights import choose_model
from slicecast_lab.evaluation.cases import CaseFiles, find_cases
from slicecast_lab.evaluation.monailabel import MonaiLabelProcess
from slicecast_lab.evaluation.page import circumstances_table, markdown, write_blocks
from slicecast_lab.evaluation.picture import draw_cases, draw_clicks
from slicecast_lab.evaluation.provenance import command_line, provenance
from slicecast_lab.evaluation.report import as_json, show_mean, write_json
from slicecast_lab.evaluation.run import MISTAKES, evaluate
from slicecast_lab.evaluation.settings import FIXED, Baseline, Settings, Unit, parse_prompt

ROOT = project_dir("docs").parent
PROMPTS = ("mask", "box", "clicks:5")
CLICKS = PROMPTS[-1]
CORRECTED = "clicks:1"  # What corrections begin with, in a report of its own
CORRECTIONS, CORRECTED_CASES = 10, 20  # How many corrections, on how many cases of a set at most

SHOWN_CORRECTIONS = (0, 1, 3, 6, 10)
EVERY = (12, 5)  # Also painted: every so many slices of the object
MEASURES = ("one mask", "one box", "one click", "click + 3 corrections", "every 5th slice")  # What the targets are for

MONAI_LABEL: Baseline = "monailabel"
BASELINE_NAMES: dict[Baseline, str] = {
    "copy": "copy to every slice",
    "copy-extent": "copy within true extent",
    "region": "region growing",
    "levelset": "level set",
    "walker": "random walker",
}
CORRECTED_BY = {
    "suggested": "clicks where the product suggests",
    "worst": "clicks on the worst slice",
    "painted": "the worst slice painted",
    "mixed": "click, painted slice, click, in turn",
}

FEWEST_CASES = 3  # With fewer a bootstrap interval says nothing at all
SMALLEST_SHARE = 0.05  # Of the wrong voxels; smaller ones are not listed

QUICK_CASES = 20
ORGANS = {"spleen": 1, "kidney_right": 2, "kidney_left": 3, "liver": 5, "heart": 51, "aorta": 52}


@dataclass(frozen=True, slots=True)
class Goal:
    """One row of the page: a structure of a set, with its target Dice for each of MEASURES."""

    key: str
    title: str
    folder: str
    values: tuple[int, ...]
    targets: tuple[float, float, float, float, float]
    split: str = ""
    unit: Unit = "mm"

    def cases(self, *, limit: int) -> list[CaseFiles]:
        """List the cases; those of one patient form a group; raises ConfigError if the set is not there."""
        folder = data_dir() / self.folder
        if self.folder == "totalsegmentator":
            image, label = folder / "example_ct.nii.gz", folder / "example_seg_fast_force_split.nii.gz"
            found = [CaseFiles(name, image, label, (value,), name) for name, value in ORGANS.items()]
            return found[: limit or None]
        found = find_cases(folder, self.values, split=self.split, limit=limit)
        return [replace(case, group=case.id.split("_")[0]) for case in found] if self.folder == "acdc" else found


GOALS = (
    Goal("hippocampus", "hippocampus, test", "hippocampus", (1, 2), (0.75, 0.70, 0.62, 0.75, 0.88), split="test"),
    Goal("acdc_lv", "ACDC left ventricle", "acdc", (3,), (0.87, 0.82, 0.78, 0.84, 0.90), unit="voxel"),
    Goal("acdc_rv", "ACDC right ventricle", "acdc", (1,), (0.80, 0.70, 0.60, 0.75, 0.85), unit="voxel"),
    Goal("acdc_myo", "ACDC myocardium", "acdc", (2,), (0.72, 0.50, 0.40, 0.60, 0.78), unit="voxel"),
    Goal("brats", "BraTS whole tumour", "brats", (1, 2, 3, 4), (0.82, 0.75, 0.65, 0.80, 0.96)),
    Goal("recist", "RECIST lesions", "recist", (1,), (0.84, 0.82, 0.80, 0.85, 0.90)),
    Goal("ct", "3 mm CT, organs", "totalsegmentator", (), (0.82, 0.74, 0.70, 0.80, 0.90)),
)


@dataclass(frozen=True, slots=True)
class RowTask:
    """One row of the page, measured in a process of its own, so that its peak memory is its own."""

    goal: Goal
    limit: int
    corrections: int
    build: Path
    command: str
    resume: bool = False


def measure(task: RowTask) -> str:
    """Measure one row from every prompt; write JSON and pictures; return the row's key."""
    torch.set_num_threads(1)
    logging.getLogger("slicecast").setLevel(logging.ERROR)
    spec = choose_model()
    predictor = load_predictor(spec)
    cases = task.goal.cases(limit=task.limit)
    with MonaiLabelProcess(spec.name, device=str(predictor.device), threads=1) as other:
        for prompt in (*PROMPTS, *([CORRECTED] if task.corrections else [])):
            file = report_file(task.build, task.goal, prompt)
            if task.resume and _weights_of(file) == spec.sha256:
                continue
            asked = cases[:CORRECTED_CASES] if prompt == CORRECTED else cases
            service = SegmentService(predictor=predictor)  # nothing read or encoded yet: first clicks are first clicks
            done = evaluate(asked, service, _settings(task, prompt), monailabel=other)
            source = provenance(spec, task.command, device=str(predictor.device))
            write_json(as_json(done, source), file)
            draw_cases(done, file.with_suffix(".png"), title=f"{task.goal.title}, {prompt}")
    return task.goal.key


def _weights_of(file: Path) -> str | None:
    return json.loads(file.read_text(encoding="utf-8"))["circumstances"]["model"]["sha256"] if file.is_file() else None


def _settings(task: RowTask, prompt: str) -> Settings:
    """MONAI Label's task is asked from the box and the clicks: it takes no masks."""
    kind, clicks = parse_prompt(prompt)
    from_mask = kind == "mask"
    return Settings(
        prompt=kind,
        clicks=clicks,
        corrections=task.corrections if prompt == CORRECTED else 0,
        every=EVERY if from_mask else (),
        baselines=() if prompt == CORRECTED else tuple(BASELINE_NAMES) if from_mask else (MONAI_LABEL,),
        unit=task.goal.unit,
    )


def tasks(
    *, quick: bool, limit: int, only: Sequence[str], build: Path, command: str, resume: bool = False
) -> list[RowTask]:
    """List what is to be measured, about the longest first."""
    found = []
    for goal in GOALS:
        if (only and goal.key not in only) or not (data_dir() / goal.folder).is_dir():
            continue
        cases = limit or (QUICK_CASES if quick and goal.key == "hippocampus" else 0)
        found.append(RowTask(goal, cases, 0 if quick else CORRECTIONS, build, command, resume))
    return found


def report_file(build: Path, goal: Goal, prompt: str) -> Path:
    """Return where a row's JSON for one prompt lies."""
    return build / f"{goal.key}-{prompt.replace(':', '')}.json"


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One set's results; raises ConfigError if a report is of another protocol, whose numbers mean something else."""

    title: str  # of the set
    targets: Mapping[str, float]  # Dice to reach, by measure
    # by prompt: those of PROMPTS, and CORRECTED unless the run was quick; as `report.as_json` writes them
    reports: Mapping[str, Mapping[str, Any]]

    def __post_init__(self) -> None:
        for report in self.reports.values():
            if report["protocol"] != FIXED:
                raise ConfigError(
                    f"A report of protocol {report['protocol']!r} does not belong in a table of {FIXED}. "
                    "Measure again with --protocol fixed."
                )

    def summary(self, prompt: str) -> Mapping[str, Any]:
        """Return the summary of one prompt."""
        return self.reports[prompt]["summary"]

    def mean(self, measure: str) -> Mapping[str, Any] | None:
        """Return the mean Dice of one of MEASURES; None where it was not measured."""
        one_mask, one_box, one_click, corrected, painted = MEASURES
        if measure == corrected:
            return self.summary(CORRECTED)["corrections"]["worst"][3] if CORRECTED in self.reports else None
        return {
            one_mask: self.summary("mask")["dice"],
            one_box: self.summary("box")["dice"],
            one_click: self.summary(CLICKS)["clicks"]["dice_by_click"][0],
            painted: self.summary("mask")["painted"]["5"]["model"],
        }[measure]


def read_rows(build: Path) -> dict[str, Row]:
    """Read what was measured, by key; rows that are not complete are left out."""
    rows = {}
    for goal in GOALS:
        files = {prompt: report_file(build, goal, prompt) for prompt in (*PROMPTS, CORRECTED)}
        there = {prompt: file for prompt, file in files.items() if file.is_file()}
        if set(PROMPTS) <= there.keys():
            reports = {prompt: json.loads(file.read_text(encoding="utf-8")) for prompt, file in there.items()}
            rows[goal.key] = Row(goal.title, dict(zip(MEASURES, goal.targets, strict=True)), reports)
    return rows


def write_page(rows: Mapping[str, Row], target: Path) -> None:
    """Write the page's tables, and beside it the plot; pictures of real scans stay in the build folder."""
    curves = {row.title: row.summary(CLICKS)["clicks"]["dice_by_click"] for row in rows.values()}
    draw_clicks(curves, target.parent / "accuracy-clicks.png")
    write_blocks(target, blocks(rows))


def blocks(rows: Mapping[str, Row]) -> dict[str, str]:
    """Return the tables by their names in the page."""
    listed = list(rows.values())
    newest = max(
        (r["circumstances"] for row in listed for r in row.reports.values()), key=lambda source: source["date"]
    )
    tables = {
        "dice": map(dice_cells, listed),
        "below target": (cells for row in listed for cells in shortfall_cells(row)),
        "baselines": map(baseline_cells, listed),
        "MONAI Label": map(monailabel_cells, listed),
        "surfaces": map(surface_cells, listed),
        "clicks": map(click_cells, listed),
        "painted": map(painted_cells, listed),
        "corrections": (cells for row in listed for cells in correction_cells(row)),
        "seconds": map(seconds_cells, listed),
    }
    return {
        "circumstances": circumstances_table(newest),
        **{name: markdown(cells) for name, cells in tables.items()},
        "cases": "\n\n".join(_remarks(rows)),
    }


def _remarks(rows: Mapping[str, Row]) -> Iterable[str]:
    """Say which cases the tables are of, where these are not all."""
    reports = [report for row in rows.values() for report in row.reports.values()]
    absent = [goal.title for goal in GOALS if goal.key not in rows]
    skipped = sorted({f"{name} ({why})" for report in reports for name, why in report["skipped"].items()})
    if len({report["circumstances"]["model"]["sha256"] for report in reports}) > 1:
        yield "**These rows come from different weights:** measure all of them again."
    if absent:
        yield f"Not measured here: {', '.join(absent)}."
    if skipped:
        yield f"Skipped cases: {'; '.join(skipped)}"
    if "hippocampus" in rows and (count := rows["hippocampus"].summary("mask")["cases"]) < 50:
        yield f"Hippocampus: the first {count} of the 50 test cases, by name (`--quick`)."


def dice_cells(row: Row) -> dict[str, str]:
    """Return Dice with its interval beside its target, for each measure."""
    summary = row.summary("mask")
    cases, groups = summary["cases"], summary["groups"]
    return {
        "set": row.title,
        "cases": f"{cases}" if cases == groups else f"{cases} (of {groups} patients)",
        **{measure: _against(row, measure) for measure in MEASURES},
    }


def baseline_cells(row: Row) -> dict[str, str]:
    """Return the model from one mask beside what simple methods make of the same mask."""
    summary = row.summary("mask")
    compared = {BASELINE_NAMES[name]: _compared(own) for name, own in summary["baselines"].items()}
    return {"set": row.title, "model": _value(summary["dice"]), **compared}


def shortfall_cells(row: Row) -> Iterable[dict[str, str]]:
    """Yield each missed target of mask and box with where its wrong voxels are, the largest share first."""
    for measure, prompt in zip(MEASURES, ("mask", "box"), strict=False):
        summary, goal = row.summary(prompt), row.targets[measure]
        shares = sorted(summary["mistakes"].items(), key=lambda item: -item[1])
        if summary["dice"]["value"] < goal:
            where = "; ".join(f"{share:.0%} {MISTAKES[kind]}" for kind, share in shares if share >= SMALLEST_SHARE)
            cells = {"set": row.title, "prompt": prompt, "Dice": _value(summary["dice"]), "target": f"{goal:.2f}"}
            yield {**cells, "where the wrong voxels are": where}


def monailabel_cells(row: Row) -> dict[str, str]:
    """Return the model beside MONAI Label's own task with the same weights, slices and prompts."""
    cells = {"set": row.title}
    for prompt in ("box", CLICKS):
        summary = row.summary(prompt)
        cells[f"Slicecast, {prompt}"] = _value(summary["dice"])
        cells[f"MONAI Label, {prompt}"] = _compared(summary["baselines"][MONAI_LABEL])
    return cells


def surface_cells(row: Row) -> dict[str, str]:
    """Return NSD and HD95 for each prompt."""
    cells = {"set": row.title, "unit": row.summary("mask")["unit"]}
    for prompt in PROMPTS:
        summary = row.summary(prompt)
        undefined = summary["hd95_undefined"]
        cells[f"NSD, {prompt}"] = show_mean(summary["nsd"])
        cells[f"HD95, {prompt}"] = show_mean(summary["hd95"], 1) + (f", {undefined} undefined" if undefined else "")
    return cells


def click_cells(row: Row) -> dict[str, str]:
    """Return Dice after each click and what is derived from it."""
    clicks = row.summary(CLICKS)["clicks"]
    return {
        "set": row.title,
        **{f"after {n}": _value(step) for n, step in enumerate(clicks["dice_by_click"], start=1)},
        "AUC (of 4)": show_mean(clicks["auc"], 2),
        f"clicks to {clicks['goal']}": f"{clicks['noc']:.2f}",
        "failures": f"{clicks['failure_rate']:.0%}",
    }


def painted_cells(row: Row) -> dict[str, str]:
    """Return Dice with one slice painted, and with every so many, beside the interpolation of the same slices."""
    summary = row.summary("mask")
    cells = {"set": row.title, "one slice": _value(summary["dice"])}
    for step in map(str, EVERY):
        found = summary["painted"][step]
        cells |= {
            f"every {step}th": _value(found["model"]),
            f"every {step}th, interpolated": _compared(found["linear"]),
        }
    return cells


def correction_cells(row: Row) -> Iterable[dict[str, str]]:
    """Yield Dice after one click and after further ones, by the kind of corrections; none where that was not measured.

    The last column lists each of all corrections after which the mean is lower than before it.
    """
    if CORRECTED not in row.reports:
        return
    summary = row.summary(CORRECTED)
    for who, steps in summary["corrections"].items():
        values = {f"+{n}" if n else "one click": _value(steps[n]) for n in SHOWN_CORRECTIONS}
        before = {"set": row.title, "cases": str(summary["cases"]), "corrections": CORRECTED_BY[who]}
        yield {**before, **values, "lower after": _falls([step["value"] for step in steps])}


def _falls(means: Sequence[float]) -> str:
    falls = [(n, after - before) for n, (before, after) in enumerate(pairwise(means), start=1) if after < before]
    return ", ".join(f"+{n} ({fall:.4f})" for n, fall in falls) or "none"


def seconds_cells(row: Row) -> dict[str, str]:
    """Return seconds of the first and the next interaction, and memory."""
    summary = row.summary(CLICKS)
    seconds = {
        f"{which} click {key}": f"{summary[f'seconds_{which}'][key]:.2f}" if summary[f"seconds_{which}"] else "-"
        for which in ("first", "next")
        for key in ("p50", "p95")
    }
    return {"set": row.title, **seconds, "peak memory, MiB": str(summary["peak_rss_mib"])}


def _against(row: Row, measure: str) -> str:
    goal, mean = row.targets[measure], row.mean(measure)
    if mean is None:
        return "not measured"
    return f"{show_mean(dict(mean))}; target {goal:.2f}{' **missed**' if mean['value'] < goal else ''}"


def _compared(baseline: Mapping[str, Any]) -> str:
    """Write a baseline's Dice and by how much the model is better, case by case."""
    difference = baseline["difference"]
    if difference["count"] < FEWEST_CASES:
        return f"{_value(baseline['dice'])}; too few cases to say ({difference['value']:+.3f})"
    low, high = difference["low"], difference["high"]
    verdict = "model better" if low > 0 else "model worse" if high < 0 else "undecided"
    return f"{_value(baseline['dice'])}; {verdict} ({low:+.3f} to {high:+.3f})"


def _value(mean: Mapping[str, Any]) -> str:
    return f"{mean['value']:.3f}"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="20 hippocampus cases, no corrections")
    parser.add_argument("--only", action="append", default=[], choices=[goal.key for goal in GOALS], help="repeatable")
    parser.add_argument("--limit", type=int, default=0, help="at most so many cases a set")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side; seconds grow with it")
    parser.add_argument("--resume", action="store_true", help="keep what was measured with the same weights")
    parser.add_argument("--render", action="store_true", help="measure nothing, write the page again")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "results", help="folder for JSON and pictures")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "results" / "accuracy.md")
    asked = parser.parse_args()
    if not asked.render:
        command = command_line("python -m slicecast_lab.benchmarks.accuracy")
        todo = tasks(
            quick=asked.quick,
            limit=asked.limit,
            only=asked.only,
            build=asked.build,
            command=command,
            resume=asked.resume,
        )
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(asked.jobs, mp_context=context, max_tasks_per_child=1) as pool:
            for done in as_completed([pool.submit(measure, task) for task in todo]):
                print(done.result(), flush=True)
    rows = read_rows(asked.build)
    if not rows:
        sys.exit(f"Nothing was measured: no set in {data_dir()}. Set SLICECAST_DATA to the folder that holds them.")
    write_page(rows, asked.page)
    print(asked.page)


if __name__ == "__main__":
    main()
