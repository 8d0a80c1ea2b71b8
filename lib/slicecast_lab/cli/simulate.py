"""Play whole labelling campaigns with a robot that knows the truth, and compare which volume or slice comes next."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from slicecast.cli._checks import Device, check_output
from slicecast.models.weights import choose_model
from slicecast_lab.evaluation.cases import Split, find_cases, find_split, has_split
from slicecast_lab.evaluation.settings import FORMATS, parse_numbers, parse_values
from slicecast_lab.simulation.strategies import check_slices, check_volumes

app = typer.Typer(add_completion=False)

Data = Annotated[Path, typer.Option(metavar="DIR", help="Folder with images/, labels/ and perhaps split.json.")]
Experiment = Annotated[
    Literal["volumes", "slices", "joint"],
    typer.Option(help="Which volume is next, which slice, or both."),
]
Strategies = Annotated[str, typer.Option(metavar="LIST", help="To compare; empty for the usual ones.")]
SliceStrategies = Annotated[str, typer.Option("--slices", metavar="LIST", help="joint: slice strategies.")]
Budgets = Annotated[str, typer.Option(metavar="LIST", help="volumes, joint: numbers of labelled volumes.")]
Seeds = Annotated[int, typer.Option(min=1, help="Campaigns of each volume strategy.")]
Seed = Annotated[int, typer.Option(help="Random seed of the robot.")]
RobotKind = Annotated[Literal["perfect", "noisy"], typer.Option("--robot", help="How surely it works.")]
Strokes = Annotated[Literal["mask", "clicks"], typer.Option(help="How the robot corrects a slice.")]
Corrections = Annotated[int, typer.Option(min=1, help="slices, joint: slices corrected after the first.")]
Label = Annotated[str, typer.Option(metavar="L[,L2]", help="Label values of the object; empty for all.")]
Patients = Annotated[str, typer.Option(metavar="TEXT", help="Names that agree up to this text are one patient.")]
PoolSize = Annotated[int, typer.Option("--pool", min=0, help="Only the first N volumes to label; 0 for all.")]
Limit = Annotated[int, typer.Option(min=0, help="Only the first N test cases; 0 for all.")]
Model = Annotated[str, typer.Option(help="A name of `slicecast models list`; empty for the default.")]
Jobs = Annotated[int, typer.Option("--jobs", "-j", help="Processes side by side; -1 for one a core.")]
Ray = Annotated[str, typer.Option(metavar="ADDRESS", help="Spread over Ray: auto, or a cluster's address.")]
Store = Annotated[Path | None, typer.Option(metavar="FILE", help="Keeps what is done: a stopped run goes on.")]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write everything measured.")]
Plot = Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the curves: .svg, .png or .pdf.")]


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
      slicecast lab simulate --data hippocampus --experiment slices --strategies value,strided,worst --limit 10
      slicecast lab simulate --data hippocampus --strategies random,strat_random,coverage --budgets 0,1,2,3,5 --jobs 2
      slicecast lab simulate --data hippocampus --experiment joint --robot noisy --json joint.json --plot joint.svg
      slicecast lab simulate --data hippocampus --pool 40 --limit 20 --jobs 8 --ray auto --store done.jsonl
    """
    check_output(json_file)
    check_output(store)
    check_output(plot, FORMATS)
    values, numbers = parse_values(label) if label else (), parse_numbers(budgets)
    names = tuple(filter(None, (word.strip() for word in strategies.split(","))))
    for word in names:
        (check_slices if experiment == "slices" else check_volumes)(word)
    for word in slice_strategies.split(","):
        check_slices(word)
    name = choose_model(model or None).name
    cases = find_campaign(data, values, pool=pool, limit=limit, patients=patients, divided=experiment != "slices")
    # PyTorch takes seconds, see main.py
    from slicecast_lab.cli._simulate import Play, hand_over
    from slicecast_lab.simulation.annotator import Robot
    from slicecast_lab.simulation.work import Setup, Workers

    play = Play(Setup(name, device), Workers(jobs, ray), store, Robot(robot, seed), strokes, corrections)
    if experiment == "slices":
        report = play.slices(cases, names)
    elif experiment == "joint":
        report = play.joint(cases, names, slice_strategies.split(","), numbers, seeds=seeds)
    else:
        report = play.volumes(cases, names, numbers, seeds=seeds)
    hand_over(report, json_file, plot)


def find_campaign(data: Path, values: Sequence[int], *, pool: int, limit: int, patients: str, divided: bool) -> Split:
    """Return the cases to measure on, and those that may be labelled or teach.

    Args:
        divided: the two have no case in common; else, where a set does not divide itself, they are all its cases.
    """
    if divided or has_split(data):
        return find_split(data, values, pool=pool, test=limit)
    cases = find_cases(data, values, limit=limit)
    grouped = [replace(c, group=c.id.split(patients)[0]) for c in cases] if patients else cases
    return Split(grouped[: pool or None], grouped)
