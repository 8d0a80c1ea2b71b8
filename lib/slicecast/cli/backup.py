"""Copy what people made in a folder of studies into one file; a server may go on meanwhile."""

from pathlib import Path
from typing import Annotated

import typer

from slicecast.cli._checks import Studies, check_output

app = typer.Typer(add_completion=False)

Output = Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="File to write, .tar.")]
AppFolder = Annotated[Path | None, typer.Option("--app", help="Folder of `serve --app`, whose sessions are taken too.")]


@app.command()
def backup(studies: Studies, output: Output, app_dir: AppFolder = None) -> None:
    """Copy labels, drafts, campaign, sessions, tuned weights and users into one file; a server may go on meanwhile.

    The images are not copied. A campaign in PostgreSQL is saved by pg_dump.

    \b
    Example: slicecast backup --studies scans -o scans-monday.tar
    """
    check_output(output, (".tar",))
    from slicecast.campaign.backup import back_up
    from slicecast.campaign.settings import campaign_settings

    done = back_up(studies, output, app=app_dir)
    typer.echo(f"{output}: {len(done.files)} files, {done.events} events, head {done.events}:{done.digest}")
    if campaign_settings().database:
        typer.echo("The campaign is in a database of its own (campaign.yaml) and not in this file.", err=True)
