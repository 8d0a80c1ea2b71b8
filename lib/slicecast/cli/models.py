"""List, download and check the models' weights.

Only ``pull`` uses the network.
"""

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from slicecast.errors import ResourceError
from slicecast.models.registry import ModelSpec, get_spec, load_registry
from slicecast.models.weights import default_model, is_present, pull, verify, weights_path

app = typer.Typer(no_args_is_help=True, help="List, download and check the models' weights.")

Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Models, as 'slicecast models list' names them.")]


@app.command("list")
def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List every known model, its licence, and whether its weights are on this machine."""
    registry, default = load_registry(), default_model()
    rows = [_row(spec, is_default=spec.name == default.name) for spec in registry.values()]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        Console().print(_table(rows))


@app.command("pull")
def pull_models(names: Names) -> None:
    """Download weights, check their size and SHA-256, and put them in place."""
    for spec in [get_spec(name) for name in names]:
        typer.echo(f"{spec.title}. Licence of the weights: {spec.licence}.")
        typer.echo(f"{spec.name}: checked, at {_pull_with_bar(spec)}")
    typer.echo(f"Used from now on when no model is named: {default_model().name}")


@app.command("verify")
def verify_models(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME...]", help="Models; default: all that are on this machine.")
    ] = None,
) -> None:
    """Read weights completely and compare their SHA-256 with the registry's."""
    specs = [get_spec(name) for name in names] if names else _installed()
    failed = [spec for spec in specs if not _report(spec)]
    if failed:
        raise typer.Exit(1)


def _installed() -> list[ModelSpec]:
    return [spec for spec in load_registry().values() if spec.bundled or weights_path(spec).exists()]


def _report(spec: ModelSpec) -> bool:
    try:
        typer.echo(f"{spec.name}: right, at {verify(spec)}")
    except ResourceError as error:
        typer.echo(f"{spec.name}: {error}", err=True)
        return False
    return True


def _pull_with_bar(spec: ModelSpec) -> str:
    columns = (TextColumn(spec.name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(spec.name, total=spec.bytes)
        return str(pull(spec, lambda done, total: bar.update(task, completed=done, total=total or spec.bytes)))


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
    return "wrong size" if weights_path(spec).is_file() else "missing" if spec.bundled else "not pulled"


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
