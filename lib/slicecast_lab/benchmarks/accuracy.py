"""Measure the default model on real scans and write the results page.

    python -m slicecast_lab.benchmarks.accuracy  # all test cases (make results)
    python -m slicecast_lab.benchmarks.accuracy --quick --jobs 2  # 20 hippocampus cases, corrections on these only

Sets come from SLICECAST_DATA (default ../shared/data); those that are absent are left out, and the page says so.
Everything measured is kept in build/results/; `--render` writes the page again from there.
"""

import argparse
import datetime
import json
import logging
import multiprocessing
import shlex
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from slicecast.config import data_dir, project_dir
from slicecast.inference.segment import SegmentService
from slicecast.models.sam2 import load_predictor
from slicecast.models.weights import choose_model
from slicecast_lab.evaluation import page
from slicecast_lab.evaluation.cases import CaseFiles, find_cases
from slicecast_lab.evaluation.monailabel import MonaiLabelProcess
from slicecast_lab.evaluation.picture import draw_cases, draw_clicks
from slicecast_lab.evaluation.provenance import provenance
from slicecast_lab.evaluation.report import as_json, write_json
from slicecast_lab.evaluation.run import evaluate
from slicecast_lab.evaluation.settings import Settings, Unit, parse_prompt

ROOT = project_dir("docs").parent
PROMPTS = ("mask", "box", "clicks:5")
BASELINES = ("copy", "copy-extent", "region", "levelset", "walker")
"""From the mask."""
OTHER = ("monailabel",)
"""From the box and the clicks: it takes no masks."""
CORRECTIONS = 3
QUICK_CASES = 20
ORGANS = {"spleen": 1, "kidney_right": 2, "kidney_left": 3, "liver": 5, "heart": 51, "aorta": 52}


@dataclass(frozen=True, slots=True)
class Goal:
    """One row of the page: a structure of a set, with its target Dice for each of PROMPTS."""

    key: str
    title: str
    folder: str
    values: tuple[int, ...]
    targets: tuple[float, float, float]
    split: str = ""
    unit: Unit = "mm"

    def cases(self, *, limit: int) -> list[CaseFiles]:
        """List the cases; those of one patient form a group.

        Raises:
            ConfigError: the set is not there.
        """
        folder = data_dir() / self.folder
        if self.folder == "totalsegmentator":
            image, label = folder / "example_ct.nii.gz", folder / "example_seg_fast_force_split.nii.gz"
            found = [CaseFiles(name, image, label, (value,), name) for name, value in ORGANS.items()]
            return found[: limit or None]
        found = find_cases(folder, self.values, split=self.split, limit=limit)
        return [replace(case, group=case.id.split("_")[0]) for case in found] if self.folder == "acdc" else found


GOALS = (
    Goal("hippocampus", "hippocampus, test", "hippocampus", (1, 2), (0.75, 0.70, 0.65), split="test"),
    Goal("acdc_lv", "ACDC left ventricle", "acdc", (3,), (0.87, 0.80, 0.80), unit="voxel"),
    Goal("acdc_rv", "ACDC right ventricle", "acdc", (1,), (0.75, 0.65, 0.65), unit="voxel"),
    Goal("acdc_myo", "ACDC myocardium", "acdc", (2,), (0.65, 0.50, 0.50), unit="voxel"),
    Goal("brats", "BraTS whole tumour", "brats", (1, 2, 3, 4), (0.75, 0.70, 0.65)),
    Goal("recist", "RECIST lesions", "recist", (1,), (0.78, 0.72, 0.70)),
    Goal("ct", "3 mm CT, six organs", "totalsegmentator", (), (0.80, 0.72, 0.70)),
)


@dataclass(frozen=True, slots=True)
class Task:
    """One row of the page, measured in a process of its own, so that its peak memory is its own."""

    goal: Goal
    limit: int
    corrections: int
    build: Path
    command: str


def measure(task: Task) -> str:
    """Measure one row from every prompt; write JSON and pictures; return the row's key."""
    torch.set_num_threads(1)
    logging.getLogger("slicecast").setLevel(logging.ERROR)
    spec = choose_model()
    predictor = load_predictor(spec)
    cases = task.goal.cases(limit=task.limit)
    with MonaiLabelProcess(spec.name, device=str(predictor.device), threads=1) as other:
        for prompt in PROMPTS:
            service = SegmentService(predictor=predictor)  # nothing read or encoded yet: first clicks are first clicks
            done = evaluate(cases, service, _settings(task, prompt), monailabel=other)
            now = datetime.datetime.now(datetime.UTC)
            said = provenance(spec, task.command, device=str(predictor.device), now=now)
            file = report_file(task.build, task.goal, prompt)
            write_json(as_json(done, said), file)
            draw_cases(done, file.with_suffix(".png"), title=f"{task.goal.title}, {prompt}")
    return task.goal.key


def _settings(task: Task, prompt: str) -> Settings:
    kind, clicks = parse_prompt(prompt)
    from_mask = kind == "mask"
    return Settings(
        prompt=kind,
        clicks=clicks,
        corrections=task.corrections if from_mask else 0,
        baselines=BASELINES if from_mask else OTHER,
        unit=task.goal.unit,
    )


def tasks(*, quick: bool, limit: int, only: Sequence[str], build: Path, command: str) -> list[Task]:
    """List what is to be measured, about the longest first."""
    found = []
    for goal in GOALS:
        if (only and goal.key not in only) or not (data_dir() / goal.folder).is_dir():
            continue
        large = goal.key == "hippocampus"
        cases = limit or (QUICK_CASES if quick and large else 0)
        found.append(Task(goal, cases, CORRECTIONS if large or not quick else 0, build, command))
    return found


def report_file(build: Path, goal: Goal, prompt: str) -> Path:
    """Return where a row's JSON for one prompt lies."""
    return build / f"{goal.key}-{prompt.replace(':', '')}.json"


def read_rows(build: Path) -> dict[str, page.Row]:
    """Read what was measured, by key; rows that are not complete are left out."""
    rows = {}
    for goal in GOALS:
        files = {prompt: report_file(build, goal, prompt) for prompt in PROMPTS}
        if all(file.is_file() for file in files.values()):
            reports = {prompt: json.loads(file.read_text(encoding="utf-8")) for prompt, file in files.items()}
            rows[goal.key] = page.Row(goal.title, dict(zip(PROMPTS, goal.targets, strict=True)), reports)
    return rows


def write_page(rows: dict[str, page.Row], target: Path) -> None:
    """Write the page, and beside it the plot; pictures of real scans stay in the build folder."""
    clicks = PROMPTS[-1]
    curves = {row.title: row.summary(clicks)["clicks"]["dice_by_click"] for row in rows.values()}
    draw_clicks(curves, target.parent / "accuracy-clicks.png")
    part = target.with_name(f".{target.name}.part")
    part.write_text(_text(rows), encoding="utf-8")
    part.replace(target)


def _text(rows: dict[str, page.Row]) -> str:
    listed, clicks = list(rows.values()), PROMPTS[-1]
    reports = [report for row in listed for report in row.reports.values()]
    newest: dict[str, Any] = max((r["circumstances"] for r in reports), key=lambda said: said["date"])
    weights = {r["circumstances"]["model"]["sha256"] for r in reports}
    missed = any(row.misses for row in listed)
    corrected = [row for row in listed if row.summary("mask")["corrections"]]
    parts = [
        INTRODUCTION,
        page.circumstances_table(newest),
        *(["**These rows come from different weights:** measure all of them again."] if len(weights) > 1 else []),
        "## Dice",
        "Over the whole volume, from prompts on the slice where the object is largest. Mean (95 % bootstrap interval).",
        page.dice_table(listed, clicks=clicks),
        *(["### Below target, and why", WHY, page.shortfall_table(listed)] if missed else []),
        _verdict(rows),
        "## Against simple methods",
        "All from the same painted slice. In brackets: by how much the model's Dice is higher, 95 % interval of the "
        "paired difference. The true extent, which *copy within true extent* uses, no user knows beforehand.",
        page.baseline_table(listed),
        "## Against MONAI Label's own SAM 2 task",
        MONAI_LABEL,
        page.monailabel_table(listed, [prompt for prompt in PROMPTS if prompt != "mask"]),
        "## Surfaces",
        "NSD with a tolerance of 2 and HD95, in the unit given.",
        page.surface_table(listed, PROMPTS),
        "## Clicks",
        CLICKS,
        page.click_table(listed, clicks=clicks),
        "![Dice against clicks](accuracy-clicks.png)",
        *(["## Painting further slices", CORRECTED, page.correction_table(corrected)] if corrected else []),
        "## Seconds and memory",
        "From the request to the mask on the scan's grid; the first click reads and encodes the scan. The machine may "
        "have had other work, see its load average above.",
        page.seconds_table(listed, clicks=clicks),
        "## Best, median and worst case",
        NOTES,
    ]
    return "\n\n".join(parts) + "\n"


def _verdict(rows: dict[str, page.Row]) -> str:
    missed = any(row.misses for row in rows.values())
    absent = [goal.title for goal in GOALS if goal.key not in rows]
    skipped = {
        f"{name} ({why})" for row in rows.values() for r in row.reports.values() for name, why in r["skipped"].items()
    }
    sizes = {key: row.summary("mask")["cases"] for key, row in rows.items()}
    lines = [
        "" if missed else "Every target is reached.",
        f"Not measured here: {', '.join(absent)}." if absent else "",
        f"Skipped cases: {'; '.join(sorted(skipped))}" if skipped else "",
        f"Hippocampus: the first {sizes['hippocampus']} of the 50 test cases, by name (`--quick`)."
        if sizes.get("hippocampus", 50) < 50
        else "",
    ]
    return "\n\n".join(filter(None, lines))


INTRODUCTION = """# Accuracy on real scans

The bundled model has been trained from nothing, on generated volumes only: on every real scan it is zero-shot. Its
training goes on, so these are numbers of a model underway, of the weights named here. Nothing was tuned on these cases.
The targets are the project's own, and ambitious. The page is written by `make results`.
Protocol: `fixed` of [`slicecast evaluate`](../cli.md#slicecast-evaluate)."""

WHY = """Shares of the wrong voxels, case by case and then the mean: on the slice that was prompted, missed or too much
on the object's other slices, and past its ends. With a mask the prompted slice is right by construction; with a box or
clicks the mistakes there are carried on."""

MONAI_LABEL = """`monailabel.sam2.infer.Sam2InferTask` with the same weights file, the same slices, windowed as here
(raw scans would be black or white to it), and the same box or the same five clicks; in brackets the paired difference
as above. It tracks forward only, so it finds nothing before the prompted slice. With the bundled model it has a
second handicap: SAM 2's own predictor, which it calls, gives a network neither the carried logits nor the drawn
prompts nor the zoom that this one was trained with."""

CLICKS = """All on the one slice: the first deepest inside the object, each further one deepest inside the largest error
of the answer there. AUC is the area under Dice over clicks 1 to 5. A case that never reaches the goal counts with all
five clicks."""

CORRECTED = """Dice after one painted slice, and after each further one painted by truth. Who chooses the slice
makes the difference: the product by its own doubt, the truth, or a rule that knows the object's true extent."""

NOTES = """`make results` draws them for every set and prompt in `build/results/`. They show real scans, which are
not this project's to give away, so they are not part of it.

## Reading the numbers

* Intervals say how far the mean would move with other cases of the same kind, no more. With three cases (BraTS, RECIST)
  they say little.
* ACDC: 10 patients in two phases each; the bootstrap draws patients. The files store no true spacing, so surfaces are
  in voxels.
* 3 mm CT: six organs of one scan, so its interval is over organs, not over patients. The labels are another network's
  output, not truth. The scan is read for its first organ only, so five of its six first clicks find it in memory.
* Dice includes the prompted slice, which a painted mask answers exactly. `dice_elsewhere` in the JSON files leaves it
  out."""


def main() -> None:
    words = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    words.add_argument("--quick", action="store_true", help="20 hippocampus cases; corrections on these only")
    words.add_argument("--only", action="append", default=[], choices=[goal.key for goal in GOALS], help="repeatable")
    words.add_argument("--limit", type=int, default=0, help="at most so many cases a set")
    words.add_argument("--jobs", type=int, default=1, help="processes side by side; seconds grow with it")
    words.add_argument("--render", action="store_true", help="measure nothing, write the page again")
    words.add_argument("--build", type=Path, default=ROOT / "build" / "results", help="folder for JSON and pictures")
    words.add_argument("--page", type=Path, default=ROOT / "docs" / "results" / "accuracy.md")
    asked = words.parse_args()
    if not asked.render:
        command = shlex.join(["python", "-m", "slicecast_lab.benchmarks.accuracy", *sys.argv[1:]])
        todo = tasks(quick=asked.quick, limit=asked.limit, only=asked.only, build=asked.build, command=command)
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
