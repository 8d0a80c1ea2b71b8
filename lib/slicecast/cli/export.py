"""Write the saved labels of a studies folder as NIfTI, NRRD, DICOM SEG or RTSTRUCT."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from slicecast.cli._checks import check_output
from slicecast.errors import NotFound

app = typer.Typer(add_completion=False)

Studies = Annotated[Path, typer.Argument(help="Folder that `slicecast serve --studies` served.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder to write to; created if missing.")]
Format = Annotated[Literal["nifti", "nrrd", "dicom-seg", "rtstruct"], typer.Option("--format", help="Of the files.")]
Tag = Annotated[str, typer.Option(help="final, original, or another tag of the labels.")]
Images = Annotated[list[str] | None, typer.Option("--image", help="Only this image's label; repeatable.")]


@app.command()
def export(studies: Studies, output: Output, kind: Format = "nifti", tag: Tag = "final", image: Images = None) -> None:
    """Write the saved labels of a studies folder as NIfTI, NRRD, DICOM SEG or RTSTRUCT.

    \b
    Examples:
      slicecast export sample-data/studies -o masks
      slicecast export my-studies -o segs --format dicom-seg --image ct_abdomen_a
      slicecast export my-dicom -o contours --format rtstruct
    """
    check_output(output / "label", makes_folders=True)
    from slicecast.dicom.export import export_labels, stored_labels

    labels = stored_labels(studies, tag=tag)
    missing = set(image or ()) - {label.image_id for label in labels}
    if missing or not labels:
        what = f"the image{'s' * (len(missing) > 1)} {', '.join(sorted(missing))}" if missing else f"{studies}"
        raise NotFound(f"There is no label '{tag}' of {what}. Save one in a client first.")
    chosen = [label for label in labels if not image or label.image_id in image]
    with tempfile.TemporaryDirectory() as work:
        skipped: dict[str, str] = {}
        written = export_labels(
            studies,
            chosen,
            output,
            kind=kind,
            work=Path(work),
            now=datetime.now(),
            skip=lambda label, error: skipped.update({label.image_id: str(error)}),
        )
        for label, path in written:
            typer.echo(f"{label.image_id}: {path}")
    end_with_skipped(skipped)


def end_with_skipped(skipped: Mapping[str, str]) -> None:
    """List the cases that were left out, each with its reason, and end with 1 if there are any."""
    for name, why in skipped.items():
        typer.echo(f"{name} was left out: {why}", err=True)
    if skipped:
        raise typer.Exit(1)
