"""Replay a session's log, and write its mask."""

from pathlib import Path
from typing import Annotated

import typer

from slicecast.errors import InputError
from slicecast.inference.session_store import SessionLog, read_log, stored_log, write_log
from slicecast.inference.sessions import replay
from slicecast.inference.volumetric import open_service
from slicecast.volume import write_mask

app = typer.Typer(add_completion=False)

File = Annotated[Path | None, typer.Argument(metavar="[LOG]", help="A log written with --log.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Mask to write: .nii.gz, .nrrd, .mha and the like.")
]
Id = Annotated[str, typer.Option("--session", metavar="ID", help="A session of a server, also a closed one.")]
Folder = Annotated[Path, typer.Option(help="Where that server keeps its sessions.")]
Log = Annotated[Path | None, typer.Option("--log", metavar="FILE", help="Write the log itself, as JSON lines.")]
Revision = Annotated[int, typer.Option(help="The session as it was at this revision; negative: as it ended.")]
Image = Annotated[Path | None, typer.Option(help="Where the image lies now, if it was moved.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]


@app.command("replay")
def replay_session(
    file: File = None,
    output: Output = None,
    session: Id = "",
    folder: Folder = Path("apps/sam2/sessions"),
    log_file: Log = None,
    revision: Revision = -1,
    image: Image = None,
    device: Device = "auto",
) -> None:
    """Replay a session's log, and write its mask.

    The same image, weights and log give the same mask as the session itself did.

    \b
    Examples:
      slicecast replay --session 4f1c09 --folder apps/sam2/sessions -o mask.nii.gz
      slicecast replay --session 4f1c09 --log session.jsonl
      slicecast replay session.jsonl --revision 3 -o mask.nii.gz
    """
    log = _log(file, session, folder)
    log = log if revision < 0 else log.until(revision)
    if output is None and log_file is None:
        raise InputError("There is nothing to write. Name a mask with --output, or a log with --log.")
    if log_file is not None:
        write_log(log_file, log)
    if output is not None:
        result = replay(log, open_service(log.header.model, device=device), image=image)
        write_mask(output, result.mask, result.geometry)
        typer.echo(f"{output}: {', '.join(result.labels)} at revision {len(log.records)}")


def _log(file: Path | None, session: str, folder: Path) -> SessionLog:
    if (file is None) == (not session):
        raise InputError("Name one session: a log file, or --session with its id.")
    return read_log(file) if file is not None else stored_log(folder, session)
