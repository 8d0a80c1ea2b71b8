"""Segment a scan from clicks, lines, boxes or painted slices."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from slicecast.active.slices import STRATEGIES, strategy_named
from slicecast.cli._checks import Device, check_output
from slicecast.errors import ConfigError
from slicecast.models.weights import choose_models
from slicecast.prompts import place
from slicecast.prompts.model import ABSENT_FORM, BOX_FORM, LINE_FORM, MASK_FORM, POINT_FORM, parse_prompts
from slicecast.volume import Reorientation, choose_axis, read_volume, write_mask
from slicecast.volume.reading import WRITTEN_ENDINGS, require_file
from slicecast.volume.slices import axis_named
from slicecast.volume.windowing import window_named

if TYPE_CHECKING:
    from slicecast.engine.options import EngineOptions
    from slicecast.inference.results import SegmentResult
    from slicecast.inference.segment import SegmentRequest
    from slicecast.inference.studies import Study
    from slicecast.inference.volumetric import Segmenter

app = typer.Typer(add_completion=False)

Image = Annotated[Path, typer.Argument(help="NIfTI, NRRD or MHA file, or a folder with one DICOM series.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Mask to write: .nii.gz, .nrrd, .mha and the like.")]
Points = Annotated[list[str] | None, typer.Option("--point", metavar=POINT_FORM, help="Voxel on the structure.")]
Negatives = Annotated[list[str] | None, typer.Option("--negative", metavar=POINT_FORM, help="Voxel beside it.")]
Lines = Annotated[list[str] | None, typer.Option("--line", metavar=LINE_FORM, help="Line that runs inside it.")]
Boxes = Annotated[list[str] | None, typer.Option("--box", metavar=BOX_FORM, help="Box on a slice; six numbers: 3D.")]
Masks = Annotated[list[str] | None, typer.Option("--mask", metavar=MASK_FORM, help="Painted slices, on the same grid.")]
Absents = Annotated[list[str] | None, typer.Option("--absent", metavar=ABSENT_FORM, help="Slice without it.")]
Model = Annotated[str, typer.Option(help="A name of `slicecast models list`; empty for the default.")]
Axis = Annotated[str, typer.Option(help="Slice axis: auto, axial, coronal or sagittal.")]
Range = Annotated[str, typer.Option("--range", metavar="A:B", help="Only these slices; B is not included.")]
Window = Annotated[str, typer.Option(help="auto, a CT preset's name, or LOW:HIGH.")]
SliceStrategy = Annotated[
    str, typer.Option(metavar="NAME", help=f"Which slice to suggest next: {', '.join(STRATEGIES)}; empty: configured.")
]
MultiAxis = Annotated[bool, typer.Option("--multi-axis", help="Let all three slice axes weigh in; takes longer.")]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write what was found and how long it took.")]
Picture = Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the result: .png, .pdf or .svg.")]


@app.command()
def segment(
    image: Image,
    output: Output,
    point: Points = None,
    negative: Negatives = None,
    line: Lines = None,
    box: Boxes = None,
    mask: Masks = None,
    absent: Absents = None,
    model: Model = "",
    device: Device = "auto",
    axis: Axis = "auto",
    slices: Range = "",
    window: Window = "auto",
    slice_strategy: SliceStrategy = "",
    multi_axis: MultiAxis = False,
    json_file: Json = None,
    picture: Picture = None,
) -> None:
    """Segment a scan from clicks, lines, boxes or painted slices.

    All indices are voxels as stored in the file, counted from 0. Options repeat; a name joins the prompts of one
    structure.

    \b
    Examples:
      slicecast segment ct.nii.gz -o out.nii.gz --point spleen=120,96,40
      slicecast segment ct.nii.gz -o out.nii.gz --line aorta=71,60,2:70,58,30:74,57,55
      slicecast segment ct.nii.gz -o out.nii.gz --box liver=40,60,140,150,32 --negative liver=50,60,32 --multi-axis
      slicecast segment dicom_folder -o out.nrrd --mask tumour=one_slice.nii.gz --picture out.png
    """
    _check_files(image, output, json_file, picture)
    _check_names(axis, window, slice_strategy)
    chosen, wanted = choose_models(model or None), _range(slices)
    prompts = parse_prompts(
        points=point or (),
        negatives=negative or (),
        boxes=box or (),
        masks=mask or (),
        absent=absent or (),
        lines=line or (),
    )
    volume = read_volume(image)
    way = Reorientation.of(volume.geometry)
    place(prompts, way, choose_axis(way.geometry, axis), within=wanted)
    from slicecast.inference.opening import open_service
    from slicecast.inference.pictures import draw_result  # torch takes seconds, see main.py
    from slicecast.inference.segment import SegmentRequest
    from slicecast.inference.studies import open_study

    options = _options(multi_axis=multi_axis)
    request = SegmentRequest(image, prompts, axis, wanted, window, options=options, slice_strategy=slice_strategy)
    service = open_service("+".join(spec.name for spec in chosen), device=device)
    result = _with_progress(service, request, open_study(volume))
    write_mask(output, result.mask, result.geometry)
    if json_file is not None:
        json_file.write_text(json.dumps(describe(result), indent=2) + "\n", encoding="utf-8")
    if picture is not None:
        draw_result(volume, result, picture)
    _say(result, output)


def _check_files(image: Path, output: Path, json_file: Path | None, picture: Path | None) -> None:
    require_file(image)
    check_output(output, WRITTEN_ENDINGS, keep=image)
    check_output(json_file)
    check_output(picture, (".png", ".pdf", ".svg"), makes_folders=True)


def _check_names(axis: str, window: str, slice_strategy: str) -> None:
    axis_named(axis)
    window_named(window)
    if slice_strategy:
        strategy_named(slice_strategy)


def describe(result: SegmentResult) -> dict[str, Any]:
    """Return what was found as JSON values: objects with voxels and ml, confidence, next slice, seconds, warnings."""
    from slicecast.inference.results import objects_of, slice_counts

    return {
        "objects": objects_of(result.mask, result.labels, result.geometry),
        "axis": result.axis,
        "window": None if result.window is None else [result.window.name, result.window.low, result.window.high],
        "confidence": {str(c.slice): round(c.value, 4) for c in result.confidence},
        "calibrated": result.calibrated,
        "next_slice": None if result.next_slice is None else asdict(result.next_slice),
        "good_enough": result.good_enough,
        "slices_walked": result.slices_walked,
        "slices_encoded": result.slices_encoded,
        "slices": slice_counts(result),
        "seconds": {name: round(value, 4) for name, value in result.seconds.items()},
        "warnings": list(result.warnings),
    }


def _with_progress(service: Segmenter, request: SegmentRequest, study: Study) -> SegmentResult:
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("loading the model")
        return service.segment(
            request, study=study, progress=lambda done, what: bar.update(task, description=f"{what}: {done} slices")
        )


def _options(*, multi_axis: bool) -> EngineOptions | None:
    """Return the options that are asked for; None for those of `configs/engine.yaml`."""
    from slicecast.inference.settings import engine_settings

    return replace(engine_settings().propagation, multi_axis=True) if multi_axis else None


def _range(text: str) -> tuple[int, int] | None:
    if not text:
        return None
    start, colon, stop = text.partition(":")
    if not (colon and start.strip().isdigit() and stop.strip().isdigit()):
        raise ConfigError(f"--range {text} is not of the form A:B, such as 10:42.")
    if int(start) >= int(stop):
        raise ConfigError(f"--range {text} holds no slice. Give A:B with A below B; B is not included.")
    return int(start), int(stop)


def _say(result: SegmentResult, output: Path) -> None:
    for name, found in describe(result)["objects"].items():
        typer.echo(f"{name}: {found['voxels']} voxels, {found['ml']:g} ml (label {found['value']})")
    if result.next_slice is not None:
        hint = result.next_slice
        typer.echo(f"annotate next: {hint.axis} slice {hint.slice}; {hint.reason}")
    elif result.good_enough:
        typer.echo(f"annotate next: no slice; {result.good_enough}")
    for warning in result.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"{output} ({result.seconds['total']:.1f} s, {result.slices_walked} slices)")
