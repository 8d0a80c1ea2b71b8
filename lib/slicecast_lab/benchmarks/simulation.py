"""Simulate campaigns with the default model and write the tables and pictures of the active-learning page.

    python -m slicecast_lab.benchmarks.simulation  # all test cases (make simulate); about 20 minutes on two quiet cores
    python -m slicecast_lab.benchmarks.simulation --quick  # fewer cases and seeds; about 8 minutes

Sets come from SLICECAST_DATA (default ../shared/data); those that are absent are left out, and the page says so. What
is done is kept in build/simulation/: a run that was stopped goes on where it ended. `--render` writes the tables again.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Template

from slicecast.config import data_dir, project_dir
from slicecast.models.weights import choose_model
from slicecast_lab.evaluation.cases import CaseFiles, find_cases, find_split
from slicecast_lab.evaluation.page import circumstances_table, markdown, write_blocks
from slicecast_lab.evaluation.provenance import command_line, provenance
from slicecast_lab.evaluation.report import write_json
from slicecast_lab.simulation.annotator import Robot
from slicecast_lab.simulation.experiments import simulate_joint, simulate_slices, simulate_volumes
from slicecast_lab.simulation.learner import Labelling
from slicecast_lab.simulation.slices import SliceTask
from slicecast_lab.simulation.tables import confidence_table, draw_report, tables_of
from slicecast_lab.simulation.volumes import VolumePlan, Work
from slicecast_lab.simulation.work import Setup, SimulationTask, Workers, carry_out

ROOT = project_dir("docs").parent
NOISY = Robot("noisy")
ANY = CaseFiles("", Path(), Path(), (), "")  # Stands for a case where only settings matter

SLICES = ("value", "strided", "worst", "disagree", "raw:value", "random", "oracle_worst")
FEWER = ("value", "strided", "worst", "raw:value", "oracle_worst")
VOLUMES = ("random", "strat_random", "coverage", "oracle")
BUDGETS = (0, 1, 2, 3, 5, 8, 12, 20)

SECTION = Template(
    """
![{{ title }}]({{ picture }})

{% for table in tables %}
**{{ table.title }}**

{{ markdown(table.frame) }}

{% for note in table.notes %}
{{ note }}

{% endfor %}
{% endfor %}
{% if not confidence.empty %}
{{ markdown(confidence) }}

From {{ fit.slices }} answered slices of {{ fit.volumes }} volumes; the gate is a Spearman of 0.3.

{% endif %}
{% if selected %}
<details><summary>Selected volumes</summary>

{{ markdown(selected) }}

</details>

{% endif %}
Robot: {{ settings.robot }}, {{ "every slice painted" if selected else settings.strokes }}. Took {{ minutes }} minutes.
""",
    trim_blocks=True,
    lstrip_blocks=True,
)
"""One section of the page."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is simulated."""

    cases: int  # test cases of E2; 0 for all
    teachers: int  # pool cases that teach how far confidence can be trusted
    corrections: int  # slices corrected after the first
    pool: int  # volumes of E1 to label, and to measure on
    queries: int  # volumes of E1 to label, and to measure on
    seeds: int  # campaigns of each strategy
    joint_pool: int  # the same of E3
    joint_queries: int  # the same of E3


FULL = Size(0, 10, 8, 40, 15, 10, 16, 10)
QUICK = Size(16, 6, 6, 24, 10, 5, 10, 6)


@dataclass(frozen=True, slots=True)
class Run:
    """One section of the page."""

    key: str
    title: str
    folder: str
    simulate: Callable[[Path, Size, Setup, Work], dict[str, Any]]


def hippocampus_slices(folder: Path, size: Size, setup: Setup, work: Work) -> dict[str, Any]:
    """E2 on the test split; the pool teaches."""
    split = find_split(folder, (1, 2), pool=size.teachers, test=size.cases)
    return simulate_slices(split.test, split.pool, SliceTask(ANY, SLICES, size.corrections), setup, work)


def hippocampus_clicks(folder: Path, size: Size, setup: Setup, work: Work) -> dict[str, Any]:
    """E2 with a noisy robot that clicks; fewer cases, because each click is a request."""
    split = find_split(folder, (1, 2), pool=size.teachers // 2, test=(size.cases or 50) // 4)
    like = SliceTask(ANY, FEWER, size.corrections // 2, NOISY, "clicks")
    return simulate_slices(split.test, split.pool, like, setup, work)


def acdc_slices(values: tuple[int, ...]) -> Callable[[Path, Size, Setup, Work], dict[str, Any]]:
    """E2 on a heart chamber; the other patients teach."""

    def simulate(folder: Path, size: Size, setup: Setup, work: Work) -> dict[str, Any]:
        found = find_cases(folder, values, limit=size.cases)
        cases = [replace(case, group=case.id.split("_")[0]) for case in found]
        return simulate_slices(cases, cases, SliceTask(ANY, SLICES, min(size.corrections, 6)), setup, work)

    return simulate


def hippocampus_volumes(folder: Path, size: Size, setup: Setup, work: Work) -> dict[str, Any]:
    """E1."""
    split = find_split(folder, (1, 2), pool=size.pool, test=size.queries)
    return simulate_volumes(split, VolumePlan(VOLUMES, BUDGETS, size.seeds), setup, work)


def hippocampus_joint(folder: Path, size: Size, setup: Setup, work: Work) -> dict[str, Any]:
    """E3 with a noisy robot."""
    split = find_split(folder, (1, 2), pool=size.joint_pool, test=size.joint_queries)
    labelling = Labelling("", size.corrections // 2, NOISY)
    plan = VolumePlan(("random", "strat_random", "coverage"), (1, 2, 3, 5, 8), size.seeds, labelling)
    return simulate_joint(split, plan, ("strided", "value"), setup, work)


RUNS = (
    Run("slices-hippocampus", "Hippocampus, painted slices", "hippocampus", hippocampus_slices),
    Run("slices-acdc-lv", "ACDC left ventricle, painted slices", "acdc", acdc_slices((3,))),
    Run("volumes-hippocampus", "Hippocampus", "hippocampus", hippocampus_volumes),
    Run("joint-hippocampus", "Hippocampus, a noisy robot", "hippocampus", hippocampus_joint),
    Run("slices-acdc-rv", "ACDC right ventricle, painted slices", "acdc", acdc_slices((1,))),
    Run("slices-clicks", "Hippocampus, clicks of a noisy robot", "hippocampus", hippocampus_clicks),
)
"""The most telling first, so that a run that is stopped early is worth the most."""


def measure(run: Run, asked: argparse.Namespace, command: str) -> None:
    """Carry out one run; write its report and under what circumstances it came about."""
    spec = choose_model()
    setup, workers = Setup(spec.name, "cpu"), Workers(asked.jobs, asked.ray)
    started = time.monotonic()

    def work(tasks: Sequence[SimulationTask]) -> list[Any]:
        return carry_out(tasks, setup, workers, store=asked.build / "done.jsonl", progress=tell)

    def tell(done: int, total: int, name: str) -> None:
        print(f"{run.key}: {done} of {total} {name}", flush=True)

    report = run.simulate(data_dir() / run.folder, QUICK if asked.quick else FULL, setup, work)
    source = provenance(spec, command, device=setup.device)
    source["seconds"] = round(time.monotonic() - started)
    write_json(report, asked.build / f"{run.key}.json")
    write_json(source, asked.build / f"{run.key}.circumstances.json")


def render(asked: argparse.Namespace) -> None:
    """Write the page's tables and pictures from what was measured."""
    found = {run: _read(asked.build / f"{run.key}.json") for run in RUNS if (asked.build / f"{run.key}.json").is_file()}
    if not found:
        sys.exit(f"Nothing was measured: no set in {data_dir()}. Set SLICECAST_DATA to the folder that holds them.")
    blocks = {"circumstances": circumstances([source for _, source in found.values()], set(RUNS) - set(found))}
    for run, (report, source) in found.items():
        picture = draw_report(report, asked.page.parent / f"active-learning-{run.key}.svg")
        blocks[run.key] = section(run.title, report, source, picture.name)
    print(write_blocks(asked.page, blocks))


def circumstances(sources: Sequence[dict[str, Any]], absent: set[Run]) -> str:
    """Say under what circumstances simulations were made, and which were not."""
    blocks = [circumstances_table(max(sources, key=lambda own: str(own["date"])))]
    if len({own["model"]["sha256"] for own in sources}) > 1:
        blocks.append("**The sections come from different weights:** run `make simulate` again.")
    if len({own["command"] for own in sources}) > 1:
        blocks.append("The sections come from different commands; the one named is the newest.")
    if absent:
        blocks.append(f"Not simulated here: {', '.join(sorted(run.title for run in absent))}.")
    return "\n\n".join(blocks)


def section(title: str, report: dict[str, Any], source: dict[str, Any], picture: str) -> str:
    """Return one section: picture, tables, how well confidence fitted, what the first campaigns labelled."""
    summary = report["summary"]
    fit = summary.get("confidence")
    selected = [
        {"strategy": name, "labelled in the campaign of seed 0": ", ".join(own["selected"][0])}
        for name, own in summary.get("strategies", {}).items()
        if "selected" in own
    ]
    return SECTION.render(
        title=title,
        picture=picture,
        tables=tables_of(report),
        fit=fit,
        confidence=confidence_table(fit) if fit else pd.DataFrame(),
        selected=selected,
        settings=report["settings"],
        minutes=f"{source['seconds'] / 60:.1f}",
        markdown=markdown,
    )


def _read(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a run's report and its circumstances."""
    report, source = (
        json.loads(f.read_text(encoding="utf-8")) for f in (file, file.with_suffix(".circumstances.json"))
    )
    return report, source


def main() -> None:
    """Simulate and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer cases and seeds")
    parser.add_argument("--only", action="append", default=[], choices=[run.key for run in RUNS], help="repeatable")
    parser.add_argument("--jobs", type=int, default=-1, help="processes side by side; -1 for one a core")
    parser.add_argument("--ray", default="", metavar="ADDRESS", help="spread over Ray: auto, or a cluster's address")
    parser.add_argument("--render", action="store_true", help="measure nothing, write the page again")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "simulation", help="folder for what is measured")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "results" / "active-learning.md")
    asked = parser.parse_args()
    if not asked.render:
        command = command_line("python -m slicecast_lab.benchmarks.simulation")
        for run in RUNS:
            if (not asked.only or run.key in asked.only) and (data_dir() / run.folder).is_dir():
                measure(run, asked, command)
                render(asked)
    render(asked)


if __name__ == "__main__":
    main()
