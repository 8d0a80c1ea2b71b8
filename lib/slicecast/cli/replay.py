"""Replay a session's log, and write its mask."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slicecast.cli._checks import Device, check_output
from slicecast.errors import InputError

if TYPE_CHECKING:
    from slicecast.inference.session_store import SessionLog

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


@app.command("replay")
def replay_session(
    file: File = None,
    output: Output = None,
    session: Id = "",
    folder: Folder = Path("sample-data/studies/.slicecast/app/sessions"),
    log_file: Log = None,
    revision: Revision = -1,
    image: Image = None,
    device: Device = "auto",
) -> None:
    """Replay a session's log, and write its mask.

    The same image, weights and log give the same mask as the session itself did.

    \b
    Examples:
      slicecast replay --session 4f1c09 --folder STUDIES/.slicecast/app/sessions -o mask.nii.gz
      slicecast replay --session 4f1c09 --log session.jsonl
      slicecast replay session.jsonl --revision 3 -o mask.nii.gz
    """
    if (file is None) == (not session):
        raise InputError("Name one session: a log file, or --session with its id.")
    if output is None and log_file is None:
        raise InputError("There is nothing to write. Name a mask with --output, or a log with --log.")
    from slicecast.inference.session_store import write_log
    from slicecast.volume.reading import WRITTEN_ENDINGS, write_mask

    check_output(output, WRITTEN_ENDINGS)
    check_output(log_file)
    log = _log(file, session, folder)
    log = log if revision < 0 else log.until(revision)
    if log_file is not None:
        write_log(log_file, log)
    if output is not None:
        from slicecast.inference.opening import open_service
        from slicecast.inference.sessions import replay  # torch takes seconds, see main.py

        result = replay(log, open_service(log.header.model, device=device), image=image)
        write_mask(output, result.mask, result.geometry)
        typer.echo(f"{output}: {', '.join(result.labels)} at revision {len(log.records)}")


def _log(file: Path | None, session: str, folder: Path) -> SessionLog:
    from slicecast.inference.session_store import read_log, stored_log

    return read_log(file) if file is not None else stored_log(folder, session)
