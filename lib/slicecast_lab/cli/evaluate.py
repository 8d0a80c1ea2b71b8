"""Measure a model on scans whose truth is known, beside simple baselines."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from slicecast.errors import ConfigError
from slicecast.inference.segment import SegmentService
from slicecast.models.registry import ModelSpec
from slicecast.models.sam2 import load_predictor
from slicecast.models.weights import choose_model
from slicecast_lab.evaluation.cases import CaseFiles, find_cases
from slicecast_lab.evaluation.monailabel import MonaiLabelProcess
from slicecast_lab.evaluation.picture import FORMATS, draw_cases
from slicecast_lab.evaluation.prompts import Settings, parse_prompt, parse_values
from slicecast_lab.evaluation.provenance import command_line, provenance
from slicecast_lab.evaluation.report import as_json, summary_table, write_json
from slicecast_lab.evaluation.run import evaluate
from slicecast_lab.evaluation.seed import PROTOCOL as SEED_EXACT
from slicecast_lab.evaluation.seed import SALIENT_VOXELS, SeedSettings, evaluate_seed
from slicecast_lab.evaluation.seed_report import (
    SEED_SETS,
    find_seed_sets,
    seed_as_json,
    seed_summary_table,
    study_settings,
    study_table,
)
from slicecast_lab.evaluation.video import VideoTracker, load_video_tracker

app = typer.Typer(add_completion=False)

T = TypeVar("T")

Data = Annotated[Path, typer.Option(metavar="DIR", help="Folder with images/ and labels/, or as in MSD or BraTS.")]
Label = Annotated[str, typer.Option(metavar="L[,L2]", help="Label values; several together are one object.")]
Split = Annotated[str, typer.Option(metavar="NAME", help="A list of split.json; empty for all cases.")]
Prompt = Annotated[str, typer.Option(help="mask, box, or clicks:N on one slice.")]
SliceName = Annotated[str, typer.Option("--slice", help="largest, centre or quarter (of the object's extent).")]
Protocol = Annotated[
    str, typer.Option(help="fixed, or seed-exact as published (clicks:N or mask on the centre slice).")
]
Preset = Annotated[str, typer.Option(help="seed: the published study's table, of the sets that --data holds.")]
Salient = Annotated[int, typer.Option(min=0, help="seed-exact: voxels above which a slice is in the clip.")]
Model = Annotated[
    str, typer.Option(help="A name of `slicecast models list`; empty for the default. --preset takes several.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Corrections = Annotated[int, typer.Option(help="So many further clicks (after clicks) or painted slices.")]
Baselines = Annotated[
    str, typer.Option(metavar="LIST", help="Any of copy,copy-extent,region,levelset,walker,monailabel.")
]
Unit = Annotated[str, typer.Option(help="Of surface distances: mm or voxel.")]
Limit = Annotated[int, typer.Option(min=0, help="Only the first N cases; 0 for all.")]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write everything measured.")]
Picture = Annotated[Path | None, typer.Option(metavar="FILE", help="Draw best, median and worst case.")]


@app.command("evaluate")
def evaluate_model(
    data: Data,
    label: Label = "",
    split: Split = "",
    prompt: Prompt = "mask",
    slice_rule: SliceName = "",
    protocol: Protocol = "fixed",
    preset: Preset = "",
    salient: Salient = SALIENT_VOXELS,
    model: Model = "",
    device: Device = "auto",
    corrections: Corrections = 0,
    baselines: Baselines = "",
    unit: Unit = "mm",
    limit: Limit = 0,
    json_file: Json = None,
    picture: Picture = None,
) -> None:
    """Measure a model on scans whose truth is known, beside simple baselines.

    \b
    Examples:
      slicecast evaluate --data sample --label 1 --prompt mask --baselines copy,copy-extent
      slicecast evaluate --data hippocampus --split test --label 1,2 --prompt clicks:5 --json out.json
      slicecast evaluate --data Task09_Spleen --protocol seed-exact --prompt clicks:5 --model sam2_hiera_large
      slicecast evaluate --data folder_of_sets --preset seed --model sam2.1_hiera_tiny,sam2.1_hiera_large
    """
    kind, clicks = parse_prompt(prompt)
    if preset or protocol == SEED_EXACT:
        own_slice = slice_rule if slice_rule != "centre" else ""
        refuse_options(slice=own_slice, corrections=corrections, baselines=baselines, picture=picture)
    if preset:
        _check_preset(preset, label=label, split=split)
        measure_study(data, models=model, device=device, limit=limit, salient=salient, json_file=json_file)
        return
    if protocol == SEED_EXACT:
        seed = SeedSettings(prompt=kind, clicks=clicks, salient=salient)  # type: ignore[arg-type]
        cases = find_cases(data, parse_values(label) if label else (), split=split, limit=limit)
        measure_set(cases, seed, set_name=data.resolve().name, model=model, device=device, json_file=json_file)
        return
    _check_fixed(protocol, label=label, picture=picture)
    settings = Settings(
        prompt=kind,
        clicks=clicks,
        slice=slice_rule or "largest",  # type: ignore[arg-type]
        corrections=corrections,
        baselines=tuple(filter(None, baselines.split(","))),  # type: ignore[arg-type]
        unit=unit,  # type: ignore[arg-type]
    )
    cases = find_cases(data, parse_values(label), split=split, limit=limit)
    _measure_fixed(cases, settings, model=model, device=device, json_file=json_file, picture=picture, title=data)


def _measure_fixed(
    cases: list[CaseFiles],
    settings: Settings,
    *,
    model: str,
    device: str,
    json_file: Path | None,
    picture: Path | None,
    title: Path,
) -> None:
    spec = choose_model(model or None)
    predictor = load_predictor(spec, device=device)
    service = SegmentService(predictor=predictor)
    with contextlib.ExitStack() as stack:
        other = None
        if "monailabel" in settings.baselines:
            place, threads = str(predictor.device), torch.get_num_threads()
            other = stack.enter_context(MonaiLabelProcess(spec.name, device=place, threads=threads))
        done = with_progress(
            len(cases), lambda tell: evaluate(cases, service, settings, monailabel=other, progress=tell)
        )
    report = as_json(done, provenance(spec, command_line("slicecast"), device=str(predictor.device)))
    Console().print(summary_table(report["summary"], settings))
    tell_skipped(done.skipped)
    if json_file is not None:
        write_json(report, json_file)
    if picture is not None:
        draw_cases(done, picture, title=title.resolve().name)


def _check_preset(preset: str, *, label: str, split: str) -> None:
    if preset != "seed":
        raise ConfigError(f"There is no preset {preset!r}. Use seed.")
    refuse_options(label=label, split=split)


def _check_fixed(protocol: str, *, label: str, picture: Path | None) -> None:
    if protocol != "fixed":
        raise ConfigError(f"There is no protocol {protocol!r}. Use fixed or {SEED_EXACT}.")
    if not label:
        raise ConfigError("Say which label values are the object, for example --label 1 or --label 1,2.")
    if picture is not None and picture.suffix not in FORMATS:
        raise ConfigError(f"--picture {picture} must end in one of {', '.join(FORMATS)}.")


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


def refuse_options(**given: object) -> None:
    """Refuse options that the published protocol does not have; raises ConfigError if one of them was given."""
    for name, value in given.items():
        if value:
            raise ConfigError(
                f"--{name} does not go with the protocol {SEED_EXACT}, which has no choice there. Leave it out."
            )


def with_progress(total: int, run: Callable[[Callable[[int, int, str], None]], T]) -> T:
    """Run something that reports cases done, their number and the name of the next, with a bar on stderr."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        return run(lambda done, _, name: bar.update(task, completed=done, description=name))


def tell_skipped(skipped: dict[str, str]) -> None:
    """Say on stderr which cases were left out, and why."""
    for name, why in skipped.items():
        typer.echo(f"skipped {name}: {why}", err=True)


def _measure_seed(
    cases: Sequence[CaseFiles], settings: SeedSettings, spec: ModelSpec, tracker: VideoTracker, *, set_name: str
) -> dict[str, Any]:
    done = with_progress(len(cases), lambda tell: evaluate_seed(cases, tracker, settings, progress=tell))
    tell_skipped(done.skipped)
    source = provenance(spec, command_line("slicecast"), device=str(tracker.device))
    return seed_as_json(done, source, set_name=set_name, fill_hole_area_px=tracker.fill_hole_area_px)
