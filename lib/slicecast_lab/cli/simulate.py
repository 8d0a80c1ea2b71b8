"""Play whole labelling campaigns with a robot that knows the truth, and compare which volume or slice comes next."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from slicecast.errors import ConfigError
from slicecast.models.weights import choose_model
from slicecast_lab.cli.evaluate import with_progress
from slicecast_lab.evaluation.cases import CaseFiles, find_cases, find_split, has_split
from slicecast_lab.evaluation.prompts import parse_values
from slicecast_lab.evaluation.report import write_json
from slicecast_lab.simulation.annotator import Robot
from slicecast_lab.simulation.experiments import EXPERIMENTS, simulate_joint, simulate_slices, simulate_volumes
from slicecast_lab.simulation.learner import Labelling
from slicecast_lab.simulation.slices import DEFAULTS as SLICES
from slicecast_lab.simulation.slices import SliceTask
from slicecast_lab.simulation.tables import draw_report, tables_of
from slicecast_lab.simulation.volumes import DEFAULTS as VOLUMES
from slicecast_lab.simulation.volumes import VolumePlan
from slicecast_lab.simulation.work import Setup, SimulationTask, Workers, carry_out

app = typer.Typer(add_completion=False)

JOINT = ("random", "strat_random", "coverage")  # Volume strategies of the joint experiment, where none are named

Data = Annotated[Path, typer.Option(metavar="DIR", help="Folder with images/, labels/ and perhaps split.json.")]
Experiment = Annotated[str, typer.Option(help="volumes (which one next), slices (which one next), or joint.")]
Strategies = Annotated[str, typer.Option(metavar="LIST", help="To compare; empty for the usual ones.")]
SliceStrategies = Annotated[str, typer.Option("--slices", metavar="LIST", help="joint: slice strategies.")]
Budgets = Annotated[str, typer.Option(metavar="LIST", help="volumes, joint: numbers of labelled volumes.")]
Seeds = Annotated[int, typer.Option(min=1, help="Campaigns of each volume strategy.")]
Seed = Annotated[int, typer.Option(help="Random seed of the robot.")]
RobotKind = Annotated[str, typer.Option("--robot", help="perfect or noisy.")]
Strokes = Annotated[str, typer.Option(help="How the robot corrects a slice: mask or clicks.")]
Corrections = Annotated[int, typer.Option(min=1, help="slices, joint: slices corrected after the first.")]
Label = Annotated[str, typer.Option(metavar="L[,L2]", help="Label values of the object; empty for all.")]
Patients = Annotated[str, typer.Option(metavar="TEXT", help="Names that agree up to this text are one patient.")]
PoolSize = Annotated[int, typer.Option("--pool", min=0, help="Only the first N volumes to label; 0 for all.")]
Limit = Annotated[int, typer.Option(min=0, help="Only the first N test cases; 0 for all.")]
Subpool = Annotated[int, typer.Option(min=1, help="Volumes drawn at random that are scored each time.")]
Model = Annotated[str, typer.Option(help="A name of `slicecast models list`; empty for the default.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Jobs = Annotated[int, typer.Option("--jobs", "-j", help="Processes side by side; -1 for one a core.")]
Ray = Annotated[str, typer.Option(metavar="ADDRESS", help="Spread over Ray: auto, or a cluster's address.")]
Store = Annotated[Path | None, typer.Option(metavar="FILE", help="Keeps what is done: a stopped run goes on.")]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write everything measured.")]
Plot = Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the curves: .svg, .png or .pdf.")]


PAGE_WIDTH = 200  # Of tables that go into a file


@app.command("simulate")
def simulate(
    data: Data,
    experiment: Experiment = "volumes",
    strategies: Strategies = "",
    slice_strategies: SliceStrategies = "strided,value",
    budgets: Budgets = "0,1,2,3,5,8,12,20",
    seeds: Seeds = 10,
    seed: Seed = 0,
    robot: RobotKind = "perfect",
    strokes: Strokes = "mask",
    corrections: Corrections = 8,
    label: Label = "",
    patients: Patients = "",
    pool: PoolSize = 0,
    limit: Limit = 0,
    subpool: Subpool = 24,
    model: Model = "",
    device: Device = "cpu",
    jobs: Jobs = 1,
    ray: Ray = "",
    store: Store = None,
    json_file: Json = None,
    plot: Plot = None,
) -> None:
    """Simulate labelling campaigns with a robot that knows the truth; compare which volume or slice comes next.

    \b
    Examples:
      slicecast simulate --data hippocampus --experiment slices --strategies value,strided,worst --limit 10
      slicecast simulate --data hippocampus --strategies random,strat_random,auto --budgets 0,1,2,3,5 --jobs 2
      slicecast simulate --data hippocampus --experiment joint --robot noisy --json joint.json --plot joint.svg
      slicecast simulate --data hippocampus --pool 40 --limit 20 --jobs 8 --ray auto --store done.jsonl
    """
    if experiment not in EXPERIMENTS:
        raise ConfigError(f"There is no experiment {experiment!r}. Use one of: {', '.join(EXPERIMENTS)}.")
    setup = Setup(choose_model(model or None).name, device)
    workers = Workers(jobs, ray)
    values, hand = parse_values(label) if label else (), Robot(robot, seed)  # type: ignore[arg-type]

    def work(tasks: Sequence[SimulationTask]) -> list[Any]:
        return with_progress(len(tasks), lambda tell: carry_out(tasks, setup, workers, store=store, progress=tell))

    if experiment == "slices":
        task = SliceTask(_ANY, _names(strategies, SLICES), corrections, hand, strokes)
        cases, teachers = _slice_cases(data, values, limit=limit, pool=pool, patients=patients)
        report = simulate_slices(cases, teachers, task, setup, work)
    else:
        numbers = tuple(_number(word) for word in budgets.split(","))
        usual = JOINT if experiment == "joint" else VOLUMES
        labelling = Labelling("", corrections, hand, strokes)
        split = find_split(data, values, pool=pool, test=limit)
        plan = VolumePlan(_names(strategies, usual), numbers, seeds, subpool, labelling)
        if experiment == "joint":
            report = simulate_joint(split, plan, _names(slice_strategies, ()), setup, work)
        else:
            report = simulate_volumes(split, replace(plan, labelling=Labelling(robot=hand)), setup, work)
    _hand_over(report, json_file, plot)


_ANY = CaseFiles("", Path(), Path(), (), "")  # Stands for a case where only settings matter


def _slice_cases(
    data: Path, values: Sequence[int], *, limit: int, pool: int, patients: str
) -> tuple[list[CaseFiles], list[CaseFiles]]:
    """Return the cases to play, and those that teach: the pool where a set has one, else each other."""
    if has_split(data):
        split = find_split(data, values, pool=pool, test=limit)
        return list(split.test), list(split.pool)
    cases = find_cases(data, values, limit=limit)
    grouped = [replace(c, group=c.id.split(patients)[0]) for c in cases] if patients else cases
    return grouped, grouped[: pool or None]


def _names(words: str, usual: Sequence[str]) -> tuple[str, ...]:
    return tuple(word.strip() for word in words.split(",") if word.strip()) or tuple(usual)


def _number(word: str) -> int:
    if not word.strip().isdecimal():
        raise ConfigError(f"The budget {word!r} is no whole number. Give ascending numbers such as 0,1,2,3,5,8.")
    return int(word)


def _hand_over(report: dict[str, Any], json_file: Path | None, plot: Path | None) -> None:
    """Print tables; write JSON and picture where they are wanted."""
    console = Console(width=None if sys.stdout.isatty() else PAGE_WIDTH)
    for table in tables_of(report):
        console.print(table.rich())
    if json_file is not None:
        write_json(report, json_file)
    if plot is not None:
        draw_report(report, plot)
