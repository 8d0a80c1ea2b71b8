"""Bring what an older version stored to this one, or say whether this one can use it."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from slicecast.cli._checks import Studies

app = typer.Typer(add_completion=False)

AppFolder = Annotated[Path | None, typer.Option("--app", help="Folder of `serve --app`, whose sessions are read too.")]
Check = Annotated[bool, typer.Option("--check", help="Read everything that is stored, and change nothing.")]


@app.command()
def upgrade(studies: Studies, check: Check = False, app_dir: AppFolder = None) -> None:
    """Bring the databases of a folder of studies to this version, while no server runs; back up before.

    A copy of each SQLite file that is changed stays beside it. With --check nothing is changed: it says whether this
    version can use what is stored, and what it would change.

    \b
    Example: slicecast upgrade --check --studies scans
    """
    from slicecast.cli._stored import read_stored, upgrade_databases

    if not check:
        for line in upgrade_databases(studies, app=app_dir):
            typer.echo(line)
        return
    found = read_stored(studies, app=app_dir)
    table = Table("what", "where", "found", "this version")
    for item in found:
        table.add_row(item.what, str(item.where), item.found, "can use it" if item.usable else "CANNOT use it")
    Console(width=160).print(table)
    raise typer.Exit(0 if all(item.usable for item in found) else 1)
