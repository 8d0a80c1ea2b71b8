"""Put a backup's work into a folder of studies that has none."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)

File = Annotated[Path, typer.Argument(metavar="FILE", help="What `slicecast backup` wrote.")]
Studies = Annotated[Path, typer.Option(metavar="DIR", help="Folder of the images, without labels or campaign.")]


@app.command()
def restore(file: File, studies: Studies) -> None:
    """Put a backup's work into a folder of studies that has none.

    Every file's SHA-256 and the chain of events are checked before anything is put in place. Users are restored
    where this machine has none.

    \b
    Example: slicecast restore scans-monday.tar --studies scans
    """
    from slicecast.campaign.backup import restore as restore_work

    done = restore_work(file, studies)
    typer.echo(f"{studies}: {len(done.files)} files, the chain holds. Head {done.events}:{done.digest}")
