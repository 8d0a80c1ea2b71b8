"""Write the saved labels of a studies folder as NIfTI, NRRD, DICOM SEG or RTSTRUCT."""

import tempfile
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from slicecast.dicom.export import FORMATS, export_labels, stored_labels
from slicecast.errors import NotFound

app = typer.Typer(add_completion=False)

Studies = Annotated[Path, typer.Argument(help="Folder that `slicecast serve --studies` served.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder to write to; made if need be.")]
Format = Annotated[str, typer.Option("--format", help=f"{', '.join(FORMATS)}.")]
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
    labels = stored_labels(studies, tag=tag)
    missing = set(image or ()) - {label.image_id for label in labels}
    if missing or not labels:
        what = f"the image{'s' * (len(missing) > 1)} {', '.join(sorted(missing))}" if missing else f"{studies}"
        raise NotFound(f"There is no label '{tag}' of {what}. Save one in a client first.")
    chosen = [label for label in labels if not image or label.image_id in image]
    with tempfile.TemporaryDirectory() as work:
        written = export_labels(studies, chosen, output, kind=kind, work=Path(work), now=datetime.now())
        for label, path in written:
            typer.echo(f"{label.image_id}: {path}")
