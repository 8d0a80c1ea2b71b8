"""Where a server keeps its lock, log and sessions: two servers of one checkout are apart, two of one folder refused."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

from filelock import FileLock, Timeout
from packaging.version import InvalidVersion, Version

import slicecast
from slicecast.campaign.settings import campaign_settings
from slicecast.config import users_file
from slicecast.errors import ResourceError

STATE = ".slicecast"
VERSION = "version"
"""In the state's folder: which version served it last."""


def state_folder(studies: str) -> Path:
    """Return where a server keeps its state: in the studies, or in the user's own folder if it cannot write there."""
    if os.access(studies, os.W_OK | os.X_OK):
        return Path(studies) / STATE
    return users_file().parent / "servers" / blake2b(studies.rstrip("/").encode(), digest_size=8).hexdigest()


@contextmanager
def only_server(studies: str) -> Iterator[None]:
    """Be the only process that serves these studies during the block, unless the campaign is shared in PostgreSQL.

    Raises:
        ResourceError: another process serves them, or a later version of Slicecast has.
    """
    note_version(state_folder(studies))
    if campaign_settings().database.startswith("postgresql"):
        yield
        return
    folder = state_folder(studies)
    lock = FileLock(folder / "server.lock", is_singleton=True, thread_local=False)  # this process may ask again
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ResourceError(
            f"Another server runs on {studies}. Stop it first, give this one other studies, or keep the campaign in "
            "PostgreSQL (database in campaign.yaml)."
        ) from error
    try:
        yield
    finally:
        lock.release()


def note_version(folder: Path) -> None:
    """Note that this version serves what is stored in a folder; what a later one has stored may be misread.

    Raises:
        ResourceError: a later version has served it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    note, own = folder / VERSION, Version(slicecast.__version__)
    try:
        last = Version(note.read_text(encoding="utf-8").strip())
    except (FileNotFoundError, InvalidVersion):
        last = own
    if last.release[:2] > own.release[:2]:
        raise ResourceError(
            f"Slicecast {last} has served these studies; this is {own}, which may misread what that has stored. "
            "Install that version or a later one, or restore a backup from before."
        )
    if not note.is_file() or last != own:
        note.write_text(f"{own}\n", encoding="utf-8")
