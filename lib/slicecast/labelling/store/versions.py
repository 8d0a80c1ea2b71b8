"""Atomic writes, and versions of labels: `labels/versions/<tag>/<image>/<UTC time>-<n><ext>`, with their records."""

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
"""Folder of the versions, among the tags' folders; hence no tag may have this name."""


def keep_version(current: Path, folder: Path, *, extension: str, info: Mapping[str, Any], now: datetime) -> Path | None:
    """Keep `current` in `folder` under a new name; None when there is no such file.

    The file is linked, not moved, so it stays in place until it is replaced: a crash in between leaves one version too
    many, never one too few.
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
    """Copy a file atomically: even after a crash `target` is the old file or the whole new one."""
    with appearing(target) as stream, source.open("rb") as original:
        shutil.copyfileobj(original, stream)


def write_atomically(target: Path, content: bytes) -> None:
    """Write a file atomically."""
    with appearing(target) as stream:
        stream.write(content)


@contextmanager
def appearing(target: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside the target, and rename it to the target once it is synced to disk."""
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
    """Sync a folder's entries to disk; without that a power cut may undo a rename."""
    if os.name != "posix":  # Windows cannot sync folders
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
