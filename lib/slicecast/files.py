"""Files that appear whole or not at all, whatever happens meanwhile, and their hashes."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def temporary(ending: str) -> Iterator[Path]:
    """Give the path of a new temporary file, which stays if the block ends well; somebody else removes it then."""
    handle, name = tempfile.mkstemp(prefix="slicecast-", suffix=ending)
    os.close(handle)
    try:
        yield Path(name)
    except BaseException:
        Path(name).unlink()
        raise


@contextmanager
def appearing(target: Path, *, synced: bool = True, mode: int | None = None, ending: str = "") -> Iterator[Path]:
    """Give the path of an empty file beside the target; it takes the target's place if the block ends well.

    Args:
        synced: it is on the disk first, so that even a power cut leaves the old file or the whole new one.
        ending: of its name, for writers that go by it; without one no search for files of a kind finds it.
        mode: of the file. Default: that of the file in whose place it comes, else readable for everybody.
    """
    handle, name = tempfile.mkstemp(prefix=".writing-", suffix=ending, dir=target.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        part.chmod(mode or (target.stat().st_mode if target.exists() else 0o644))
        if synced:
            publish(part, target)
        else:
            part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def publish(part: Path, target: Path) -> None:
    """Move a file of the same folder into its place once it is on the disk."""
    with part.open("rb+") as stream:
        os.fsync(stream.fileno())
    part.replace(target)
    sync_folder(target.parent)


def write_atomically(target: Path, content: bytes, *, mode: int | None = None) -> None:
    """Write a file atomically."""
    with appearing(target, mode=mode) as part:
        part.write_bytes(content)


def place_file(source: Path, target: Path) -> None:
    """Copy a file atomically: even after a crash `target` is the old file or the whole new one."""
    with appearing(target) as part:
        shutil.copyfile(source, part)


def sync_folder(folder: Path) -> None:
    """Sync a folder's entries to disk; without that a power cut may undo a rename."""
    if os.name != "posix":  # Windows cannot sync folders
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
