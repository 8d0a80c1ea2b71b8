"""What `slicecast lab evaluate` does once its input is checked; PyTorch takes seconds to import."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import typer
from rich.console import Console

from slicecast.models.registry import ModelSpec
from slicecast.models.weights import choose_model
from slicecast_lab.cli._progress import tell_skipped, with_progress
from slicecast_lab.evaluation.cases import CaseFiles, find_cases
from slicecast_lab.evaluation.engine_table import engines_table
from slicecast_lab.evaluation.engines import Engine, open_engine
from slicecast_lab.evaluation.monailabel import MonaiLabelProcess
from slicecast_lab.evaluation.picture import draw_cases
from slicecast_lab.evaluation.provenance import command_line, provenance
from slicecast_lab.evaluation.report import as_json, summary_table, write_json
from slicecast_lab.evaluation.run import Evaluation, evaluate
from slicecast_lab.evaluation.seed import evaluate_seed
from slicecast_lab.evaluation.seed_report import (
    SEED_SETS,
    find_seed_sets,
    seed_as_json,
    seed_summary_table,
    study_settings,
    study_table,
)
from slicecast_lab.evaluation.settings import FIXED, SEED_EXACT, SeedSettings, Settings
from slicecast_lab.evaluation.video import VideoTracker, load_video_tracker


def measure_fixed(
    cases: list[CaseFiles],
    settings: Settings,
    *,
    models: str,
    device: str,
    json_file: Path | None,
    picture: Path | None,
    title: Path,
) -> None:
    """Measure engines on one set by our protocol; print a table for each and one of them all, write what is wanted."""
    reports: list[dict[str, Any]] = []
    for name in models.split(","):
        engine = open_engine(name, device=device)
        done = _measured(cases, settings, engine)
        reports.append(as_json(done, engine.provenance(command_line("slicecast"))))
        Console().print(summary_table(reports[-1]["summary"], settings))
        tell_skipped(done.skipped)
        if json_file is not None:
            write_json(reports[0] if "," not in models else {"protocol": FIXED, "reports": reports}, json_file)
        if picture is not None:
            draw_cases(done, picture, title=title.resolve().name)
    if len(reports) > 1:
        Console().print(engines_table(reports))


def _measured(cases: Sequence[CaseFiles], settings: Settings, engine: Engine) -> Evaluation:
    with contextlib.ExitStack() as stack:
        other = None
        if "monailabel" in settings.baselines:
            process = MonaiLabelProcess(engine.name, device=engine.device, threads=torch.get_num_threads())
            other = stack.enter_context(process)
        return with_progress(
            len(cases), lambda tell: evaluate(cases, engine.service, settings, monailabel=other, progress=tell)
        )


def measure_set(
    cases: list[CaseFiles], settings: SeedSettings, *, set_name: str, model: str, device: str, json_file: Path | None
) -> None:
    """Measure one model from one prompt on one set."""
    spec = choose_model(model or None)
    report = _measure_seed(cases, settings, spec, load_video_tracker(spec, device=device), set_name=set_name)
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
                reports.append(_measure_seed(cases, settings, spec, tracker, set_name=name))
                if json_file is not None:
                    write_json({"protocol": SEED_EXACT, "preset": "seed", "reports": reports}, json_file)
    typer.echo(
        f"Mean Dice over the clip (95 % bootstrap interval), protocol {SEED_EXACT}, salient over {salient} voxels.\n"
    )
    typer.echo(study_table(reports, columns=[item.name for item in SEED_SETS]))
    absent = [item.name for item in SEED_SETS if item.name not in sets]
    if absent:
        typer.echo(f"\nNot in {root}: {', '.join(absent)}.")


def _measure_seed(
    cases: Sequence[CaseFiles], settings: SeedSettings, spec: ModelSpec, tracker: VideoTracker, *, set_name: str
) -> dict[str, Any]:
    done = with_progress(len(cases), lambda tell: evaluate_seed(cases, tracker, settings, progress=tell))
    tell_skipped(done.skipped)
    source = provenance(spec, command_line("slicecast"), device=str(tracker.device))
    return seed_as_json(done, source, set_name=set_name, fill_hole_area_px=tracker.fill_hole_area_px)
