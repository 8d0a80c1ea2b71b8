"""List, download and check the models' weights.

Also of those that were fine-tuned on a campaign's labels. Only ``pull`` uses the network.
"""

from __future__ import annotations

import getpass
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from slicecast.campaign.events import Kind
from slicecast.cli._checks import Studies
from slicecast.errors import NotFound, ResourceError
from slicecast.models.registry import ModelSpec, get_spec, load_registry
from slicecast.models.weights import (
    Confirm,
    choose_model,
    default_model,
    is_present,
    pinned,
    pull,
    verify,
    weights_path,
)

if TYPE_CHECKING:
    from slicecast.models.versions import Base, ModelVersions

app = typer.Typer(no_args_is_help=True, help="List, download and check the models' weights.")

Yes = Annotated[
    bool, typer.Option("--yes", help="Trust a file of which nobody published a SHA-256 without being asked.")
]
Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Models, as 'slicecast models list' names them.")]

Model = Annotated[str, typer.Option(help="What they are versions of: a model, or automatic; empty for the default.")]


@app.command("list")
def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List every known model, its licence, and whether its weights are on this machine.

    \b
    Example: slicecast models list
    """
    registry, default = load_registry(), default_model()
    rows = [_row(spec, is_default=spec.name == default.name) for spec in registry.values()]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        Console().print(_table(rows))


@app.command("pull")
def pull_models(names: Names, yes: Yes = False) -> None:
    """Download weights, check their size and SHA-256, and put them in place.

    \b
    Example: slicecast models pull sam2.1_hiera_tiny
    """
    for spec in [get_spec(name) for name in names]:
        typer.echo(f"{spec.title}. Licence of the weights: {spec.licence}.")
        typer.echo(f"{spec.name}: checked, at {_pull_with_bar(spec, _confirm(spec, yes))}")
    typer.echo(f"Used from now on when no model is named: {default_model().name}")


@app.command("verify")
def verify_models(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME...]", help="Models; default: all that are on this machine.")
    ] = None,
    yes: Yes = False,
) -> None:
    """Read weights completely and compare their SHA-256 with the registry's.

    \b
    Examples:
      slicecast models verify
      slicecast models verify sam2.1_hiera_tiny
    """
    specs = [get_spec(name) for name in names] if names else _installed()
    failed = [spec for spec in specs if not _report(spec, _confirm(spec, yes))]
    if failed:
        raise typer.Exit(1)


@app.command("versions")
def list_versions(studies: Studies) -> None:
    """List the weights that learnt the labels of a folder of studies, and which are used.

    \b
    Example: slicecast models versions --studies scans
    """
    versions = _versions(studies)
    table = Table("version", "made", "labels", "Dice or gain", "used", "SHA-256", box=None)
    for version in versions.all():
        used = versions.deployed(_base(version.base)) == version
        made = datetime.fromtimestamp(version.made_s, UTC).strftime("%Y-%m-%d %H:%M")
        told = version.verdict
        dice = f"{told['gain']:+.3f}" if "gain" in told else f"{told['dice']:.3f}"
        table.add_row(version.name, made, str(len(version.labels)), dice, "yes" if used else "", version.sha256[:16])
    Console().print(table)


@app.command("rollback")
def roll_back(
    studies: Studies,
    version: Annotated[int | None, typer.Argument(metavar="[NUMBER]", help="0: the model's own weights.")] = None,
    model: Model = "",
) -> None:
    """Use earlier weights again: those before the present ones, or a version by its number.

    A running server takes them up with the next request; nothing is deleted.

    \b
    Examples:
      slicecast models rollback --studies scans
      slicecast models rollback --studies scans 2
      slicecast models rollback --studies scans --model automatic
    """
    versions = _versions(studies)
    base = _base(model)
    from slicecast.labelling.finetuning.tuner import campaign_of  # MONAI Label takes seconds, see main.py

    before = versions.deployed(base) or base
    now = versions.roll_back(base, version) or base
    told = {"model": now.name, "sha256": now.sha256, "before": before.name}
    campaign_of(versions).weights_changed(Kind.ROLLED_BACK, getpass.getuser(), told)
    typer.echo(f"{now.name if now.sha256 else 'Nothing'} is used from now on, in place of {before.name}.")


def _base(model: str) -> Base:
    from slicecast.labelling.finetuning.automatic import MODEL, NOTHING

    return NOTHING if model == MODEL else choose_model(model or None)


def _versions(studies: Path) -> ModelVersions:
    from slicecast.labelling.finetuning.tuner import versions_beside

    versions = versions_beside(studies)
    if not versions.all():
        raise NotFound(f"Nothing has learnt the labels of {studies} yet. Begin with 'slicecast train finetune'.")
    return versions


def _installed() -> list[ModelSpec]:
    return [spec for spec in load_registry().values() if spec.bundled or weights_path(spec).exists()]


def _confirm(spec: ModelSpec, yes: bool) -> Confirm:
    """Return the question about a file that nobody published a SHA-256 of; without a terminal the answer is no."""

    def ask(sha256: str, size: int) -> bool:
        typer.echo(f"{spec.name}: nobody published a SHA-256 of this file. It has {size} bytes and SHA-256 {sha256}.")
        return yes or (sys.stdin.isatty() and typer.confirm("Trust this very file from now on?"))

    return ask


def _report(spec: ModelSpec, confirm: Confirm) -> bool:
    try:
        typer.echo(f"{spec.name}: right, at {verify(spec, confirm)}")
    except ResourceError as error:
        typer.echo(f"{spec.name}: {error}", err=True)
        return False
    return True


def _pull_with_bar(spec: ModelSpec, confirm: Confirm) -> str:
    columns = (TextColumn(spec.name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(spec.name, total=spec.bytes)

        def advance(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total or spec.bytes)

        def ask(sha256: str, size: int) -> bool:
            bar.stop()
            return confirm(sha256, size)

        return str(pull(spec, advance, ask))


def _row(spec: ModelSpec, *, is_default: bool) -> dict[str, object]:
    return {
        "name": spec.name,
        "title": spec.title,
        "default": is_default,
        "state": _state(spec),
        "image_size": spec.image_size,
        "bytes": spec.bytes,
        "licence": spec.licence,
        "notes": spec.notes or spec.unsupported,
        "path": str(weights_path(spec)),
    }


def _state(spec: ModelSpec) -> str:
    if not spec.supported:
        return "not supported"
    if is_present(spec):
        return "ready"
    if pinned(spec).sha256 is None and not spec.bundled and weights_path(spec).is_file():
        return "not trusted yet"
    if weights_path(spec).is_file():
        return "wrong size"
    return "missing" if spec.bundled else "not trained" if spec.recipe else "not pulled"


def _table(rows: list[dict[str, object]]) -> Table:
    table = Table(caption="* used when no model is named")
    for heading, justify in (("model", "left"), ("state", "left"), ("input px", "right"), ("MB", "right")):
        table.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("licence of the weights", ratio=1)
    for row in rows:
        size = row["bytes"]
        megabytes = f"{size / 1e6:.0f}" if isinstance(size, int) else "?"
        name = f"{'*' if row['default'] else ' '} {row['name']}"
        table.add_row(name, str(row["state"]), str(row["image_size"]), megabytes, str(row["licence"]))
    return table
