"""Checks output paths before anything is computed."""

import os
from collections.abc import Collection
from pathlib import Path

from slicecast.errors import ConfigError, ResourceError


def check_output(path: Path | None, endings: Collection[str] = (), *, makes_folders: bool = False) -> None:
    """Say before the work what would stop a file from being written at its end; None is none.

    Args:
        endings: that the name may have; empty for any.
        makes_folders: the file's folder is created where it is missing.

    Raises:
        ConfigError: another ending, a folder of that name, or no folder for it.
        ResourceError: the folder cannot be written to.
    """
    if path is None:
        return
    if endings and not path.name.lower().endswith(tuple(endings)):
        raise ConfigError(f"{path} must end in one of {', '.join(endings)}.")
    if path.is_dir():
        raise ConfigError(f"{path} is a folder. Give the name of a file in it.")
    folder = next(place for place in path.absolute().parents if place.exists())
    if not folder.is_dir() or (folder != path.absolute().parent and not makes_folders):
        raise ConfigError(f"The folder {path.parent} does not exist. Create it first.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ResourceError(f"{folder} cannot be written to. Give another place for {path.name}.")
