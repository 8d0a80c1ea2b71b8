"""Measure a model on scans whose truth is known, beside simple baselines."""

import datetime
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from slicecast.errors import ConfigError
from slicecast.evaluation.cases import CaseFiles, find_cases
from slicecast.evaluation.picture import FORMATS, draw_cases
from slicecast.evaluation.provenance import provenance
from slicecast.evaluation.report import as_json, summary_table, write_json
from slicecast.evaluation.run import Evaluation, evaluate
from slicecast.evaluation.settings import Settings, parse_prompt, parse_values
from slicecast.models.sam2 import load_predictor
from slicecast.models.weights import choose_model
from slicecast.service.segment import SegmentService

app = typer.Typer(add_completion=False)

Data = Annotated[Path, typer.Option(metavar="DIR", help="Folder with images/ and labels/ of the same names.")]
Label = Annotated[str, typer.Option(metavar="L[,L2]", help="Label values; several together are one object.")]
Split = Annotated[str, typer.Option(metavar="NAME", help="A list of split.json; empty for all cases.")]
Prompt = Annotated[str, typer.Option(help="mask, box, or clicks:N on one slice.")]
SliceName = Annotated[str, typer.Option("--slice", help="largest, centre or quarter (of the object's extent).")]
Protocol = Annotated[str, typer.Option(help="fixed.")]
Model = Annotated[str, typer.Option(help="A name of `slicecast models list`; empty for the default.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Corrections = Annotated[int, typer.Option(help="Paint so many further slices, chosen in three ways.")]
Baselines = Annotated[str, typer.Option(metavar="LIST", help="Any of copy,copy-extent,region,walker.")]
Unit = Annotated[str, typer.Option(help="Of surface distances: mm or voxel.")]
Limit = Annotated[int, typer.Option(min=0, help="Only the first N cases; 0 for all.")]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write everything measured.")]
Picture = Annotated[Path | None, typer.Option(metavar="FILE", help="Draw best, median and worst case.")]


@app.command("evaluate")
def evaluate_model(
    data: Data,
    label: Label,
    split: Split = "",
    prompt: Prompt = "mask",
    slice_rule: SliceName = "largest",
    protocol: Protocol = "fixed",
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
    """
    _check_protocol(protocol)
    if picture is not None and picture.suffix not in FORMATS:
        raise ConfigError(f"--picture {picture} must end in one of {', '.join(FORMATS)}.")
    kind, clicks = parse_prompt(prompt)
    settings = Settings(
        prompt=kind,
        clicks=clicks,
        slice=slice_rule,  # type: ignore[arg-type]
        corrections=corrections,
        baselines=tuple(filter(None, baselines.split(","))),  # type: ignore[arg-type]
        unit=unit,  # type: ignore[arg-type]
    )
    cases = find_cases(data, parse_values(label), split=split, limit=limit)
    spec = choose_model(model or None)
    predictor = load_predictor(spec, device=device)
    evaluation = _with_progress(cases, SegmentService(predictor=predictor), settings)
    command = shlex.join(["slicecast", *sys.argv[1:]])
    now = datetime.datetime.now(datetime.UTC)
    report = as_json(evaluation, provenance(spec, command, device=str(predictor.device), now=now))
    Console().print(summary_table(report["summary"], settings))
    for name, why in evaluation.skipped.items():
        typer.echo(f"skipped {name}: {why}", err=True)
    if json_file is not None:
        write_json(report, json_file)
    if picture is not None:
        draw_cases(evaluation, picture, title=data.resolve().name)


def _check_protocol(protocol: str) -> None:
    if protocol == "seed-exact":
        raise ConfigError("The protocol 'seed-exact' is not part of this version. Use --protocol fixed.")
    if protocol != "fixed":
        raise ConfigError(f"There is no protocol {protocol!r}. Use fixed.")


def _with_progress(cases: list[CaseFiles], service: SegmentService, settings: Settings) -> Evaluation:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=len(cases))
        return evaluate(
            cases,
            service,
            settings,
            progress=lambda done, total, name: bar.update(task, completed=done, description=name),
        )
