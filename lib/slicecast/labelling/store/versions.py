"""Keep what is about to be replaced: `labels/versions/<tag>/<image>/<UTC time>-<n><ext>`, with its record beside it."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

FOLDER = "versions"
"""Under the labels' folder; a name that no label tag may have."""


def keep_version(current: Path, folder: Path, *, extension: str, info: Mapping[str, Any], now: datetime) -> Path | None:
    """Put the file `current` into `folder` under a new name; None when there is no such file.

    The file is linked, not moved: until the new one replaces it, it stays where it was. A crash between the two
    steps leaves one version too many, never one too few.
    """
    if not current.is_file():
        return None
    folder.mkdir(parents=True, exist_ok=True)
    target = _free_name(folder, now.strftime("%Y%m%dT%H%M%SZ"), extension)
    try:
        os.link(current, target)
        sync_folder(folder)
    except OSError:  # another file system, or one without links
        place_file(current, target)
    write_atomically(target.with_name(target.name + ".json"), json.dumps(dict(info), indent=2, default=str).encode())
    return target


def place_file(source: Path, target: Path) -> None:
    """Copy `source` to `target`, which is at any time the old file or the whole new one, even after a crash."""
    with _appearing(target) as stream, source.open("rb") as original:
        shutil.copyfileobj(original, stream)


def write_atomically(target: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all."""
    with _appearing(target) as stream:
        stream.write(content)


@contextmanager
def _appearing(target: Path) -> Iterator[BinaryIO]:
    """Open a file beside the target that takes its place once it is complete and on the disk."""
    handle, temporary = tempfile.mkstemp(prefix=".writing-", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        _publish(temporary, target)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _publish(temporary: str, target: Path) -> None:
    Path(temporary).chmod(target.stat().st_mode if target.exists() else 0o644)
    Path(temporary).replace(target)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Bring a folder's list of names to the disk; without it a power cut may undo a rename."""
    if os.name != "posix":  # Windows has no such thing
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _free_name(folder: Path, stem: str, suffix: str) -> Path:
    taken = {path.name for path in folder.iterdir()}
    number = next(n for n in range(1, len(taken) + 2) if f"{stem}-{n}{suffix}" not in taken)
    return folder / f"{stem}-{number}{suffix}"
