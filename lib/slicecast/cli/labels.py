"""Take in labels that were made elsewhere."""

from __future__ import annotations

import getpass
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from slicecast.cli._checks import Studies
from slicecast.errors import ConfigError, NotFound

if TYPE_CHECKING:
    from slicecast.labelling.importing import ImportRow, ImportRules, Save

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Take in labels that were made elsewhere.")

Folder = Annotated[Path, typer.Argument(help="NIfTI, NRRD, MHA or DICOM SEG; or a Decathlon or nnU-Net data set.")]
Map = Annotated[str, typer.Option("--map", metavar="N=NAME,...", help="Names of the values, before all others.")]
Kind = Annotated[Literal["final", "draft"], typer.Option("--as", help="draft: the next annotator's start.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
Replace = Annotated[bool, typer.Option("--replace", help="Also where there is a label; approved ones stay.")]
User = Annotated[str, typer.Option(metavar="NAME", help="Whose labels they are; you by default.")]


@app.callback()
def labels() -> None:
    """Take in labels that were made elsewhere."""


@app.command("import")
def import_folder(
    folder: Folder,
    studies: Studies,
    mapping: Map = "",
    kind: Kind = "final",
    dry: DryRun = False,
    replace: Replace = False,
    user: User = "",
) -> None:
    """Take in labels by name: CASE, CASE_seg, CASE.seg for the image CASE (or CASE_0000); DICOM SEG by its series.

    Each must lie on its image's grid and hold whole numbers from 0 to 255, each with a name: from --map, a
    dataset.json of the labels, the DICOM SEG, or a dataset.json of the images. Ends with 1 if any was refused.

    \b
    Examples:
      slicecast labels import experts --studies scans --map 1=liver,2=spleen --dry-run
      slicecast labels import Task09_Spleen --studies scans --user "Dr Lee"
      slicecast labels import nnUNet_predictions --studies scans --map 1=liver --as draft
    """
    if not folder.is_dir():
        raise NotFound(f"There is no folder {folder}. Give the one that holds the labels.")
    named = read_map(mapping)
    # Here, because MONAI Label takes seconds (see main.py).
    from slicecast.labelling.importing import Images, ImportNames, ImportRules, find_labels, import_labels
    from slicecast.labelling.store.labels import FINAL, ORIGINAL
    from slicecast.volume.reading import dataset_description, value_names

    found = find_labels(folder)
    names = ImportNames(named, value_names(dataset_description(studies)))
    rules = ImportRules(user or getpass.getuser(), {"final": FINAL, "draft": ORIGINAL}[kind], replace)
    with tempfile.TemporaryDirectory() as work, _saving(studies, rules, dry=dry) as save:
        rows = list(import_labels(found, Images(studies, Path(work)), names, save=save))
    _print(rows, folder)
    refused = sum(row.refused for row in rows)
    verb = "would be taken in" if dry else "taken in"
    others = f"; {found.passed_over} other files passed over" if found.passed_over else ""
    typer.echo(f"{len(rows) - refused} of {len(rows)} labels {verb}, {refused} refused{others}")
    if refused:
        raise typer.Exit(1)


def read_map(text: str) -> dict[int, str]:
    """Read `1=liver,2=spleen`; raises ConfigError if it is written otherwise, or gives a name or value twice."""
    found: dict[int, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        number, equals, name = (word.strip() for word in part.partition("="))
        if not (equals and name and number.isdecimal() and 1 <= int(number) <= 255):
            raise ConfigError(f"--map {part!r} is no value with its name. Write --map 1=liver,2=spleen.")
        if int(number) in found or name in found.values():
            raise ConfigError(f"--map gives '{part}' a value or name a second time. Give each once.")
        found[int(number)] = name
    return found


@contextmanager
def _saving(studies: Path, rules: ImportRules, *, dry: bool) -> Iterator[Save]:
    from slicecast.labelling.importing import dry_run, importing

    if dry:
        yield dry_run(studies, rules)
        return
    with importing(studies, rules) as save:
        yield save


def _print(rows: list[ImportRow], folder: Path) -> None:
    table = Table("label", "image", "", box=None)
    for column in table.columns:
        column.overflow = "fold"
    for row in rows:
        outcome = f"[red]refused[/] {row.outcome}" if row.refused else row.outcome
        table.add_row(row.file.relative_to(folder).as_posix(), row.image, outcome)
    Console().print(table)
