"""The published protocol behind ``slicecast evaluate --protocol seed-exact`` and ``--preset seed``."""

import datetime
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from slicecast.errors import ConfigError
from slicecast.models.registry import ModelSpec
from slicecast.models.video import VideoTracker, load_video_tracker
from slicecast.models.weights import choose_model
from slicecast_lab.evaluation.cases import CaseFiles, find_cases
from slicecast_lab.evaluation.layouts import SEED_SETS, find_seed_sets
from slicecast_lab.evaluation.provenance import provenance
from slicecast_lab.evaluation.report import write_json
from slicecast_lab.evaluation.seed import PROTOCOL, SeedSettings, evaluate_seed
from slicecast_lab.evaluation.seed_report import seed_as_json, seed_summary_table, study_settings, study_table

T = TypeVar("T")


def measure_set(
    cases: list[CaseFiles], settings: SeedSettings, *, set_name: str, model: str, device: str, json_file: Path | None
) -> None:
    """Measure one model from one prompt on one set."""
    spec = choose_model(model or None)
    report = _measure(cases, settings, spec, load_video_tracker(spec, device=device), set_name=set_name)
    Console().print(seed_summary_table(report))
    if json_file is not None:
        write_json(report, json_file)


def measure_study(root: Path, *, models: str, device: str, limit: int, salient: int, json_file: Path | None) -> None:
    """Measure models on every set of the study that is in `root`, from each of its prompts; print its table.

    Written after every evaluation, so that a run that is stopped keeps what it has.
    """
    sets = find_seed_sets(root)
    reports: list[dict[str, Any]] = []
    for spec in [choose_model(name) for name in models.split(",") if name] or [choose_model()]:
        tracker = load_video_tracker(spec, device=device)
        for name, folder in sets.items():
            cases = find_cases(folder, (), limit=limit)
            for settings in study_settings(salient):
                reports.append(_measure(cases, settings, spec, tracker, set_name=name))
                if json_file is not None:
                    write_json({"protocol": PROTOCOL, "preset": "seed", "reports": reports}, json_file)
    typer.echo(
        f"Mean Dice over the clip (95 % bootstrap interval), protocol {PROTOCOL}, salient over {salient} voxels.\n"
    )
    typer.echo(study_table(reports, columns=[item.name for item in SEED_SETS]))
    absent = [item.name for item in SEED_SETS if item.name not in sets]
    if absent:
        typer.echo(f"\nNot in {root}: {', '.join(absent)}.")


def refuse_options(**given: object) -> None:
    """Refuse options that the published protocol does not have.

    Raises:
        ConfigError: one of them was given.
    """
    for name, value in given.items():
        if value:
            raise ConfigError(
                f"--{name} does not go with the protocol {PROTOCOL}, which has no choice there. Leave it out."
            )


def with_progress(total: int, run: Callable[[Callable[[int, int, str], None]], T]) -> T:
    """Run something that reports cases done, their number and the name of the next, with a bar on stderr."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        return run(lambda done, _, name: bar.update(task, completed=done, description=name))


def command_line() -> str:
    """Return the command as typed."""
    return shlex.join(["slicecast", *sys.argv[1:]])


def tell_skipped(skipped: dict[str, str]) -> None:
    """Say on stderr which cases were left out, and why."""
    for name, why in skipped.items():
        typer.echo(f"skipped {name}: {why}", err=True)


def _measure(
    cases: Sequence[CaseFiles], settings: SeedSettings, spec: ModelSpec, tracker: VideoTracker, *, set_name: str
) -> dict[str, Any]:
    done = with_progress(len(cases), lambda tell: evaluate_seed(cases, tracker, settings, progress=tell))
    tell_skipped(done.skipped)
    now = datetime.datetime.now(datetime.UTC)
    said = provenance(spec, command_line(), device=str(tracker.device), now=now)
    return seed_as_json(done, said, set_name=set_name, fill_hole_area_px=tracker.fill_hole_area_px)
