"""Where a server keeps its lock, log and sessions: two servers of one checkout are apart, two of one folder refused."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

from filelock import FileLock, Timeout

from slicecast.campaign.settings import campaign_settings
from slicecast.config import users_file
from slicecast.errors import ResourceError

STATE = ".slicecast"


def state_folder(studies: str) -> Path:
    """Return where a server keeps its state: in the studies, or in the user's own folder if it cannot write there."""
    if os.access(studies, os.W_OK | os.X_OK):
        return Path(studies) / STATE
    return users_file().parent / "servers" / blake2b(studies.rstrip("/").encode(), digest_size=8).hexdigest()


@contextmanager
def only_server(studies: str) -> Iterator[None]:
    """Be the only process that serves these studies during the block, unless the campaign is shared in PostgreSQL.

    Raises:
        ResourceError: another process serves them.
    """
    if campaign_settings().database.startswith("postgresql"):
        yield
        return
    folder = state_folder(studies)
    folder.mkdir(parents=True, exist_ok=True)
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
