"""Versions of labels: `labels/versions/<tag>/<image>/<UTC time>-<n><ext>`, with their records."""

import json
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from slicecast.files import place_file, sync_folder, write_atomically

FOLDER = "versions"  # Folder of the versions, among the tags' folders; hence no tag may have this name


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


def _free_name(folder: Path, stem: str, suffix: str) -> Path:
    taken = {path.name for path in folder.iterdir()}
    number = next(n for n in range(1, len(taken) + 2) if f"{stem}-{n}{suffix}" not in taken)
    return folder / f"{stem}-{number}{suffix}"
