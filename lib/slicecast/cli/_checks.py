"""Checks folders, output paths and the device's name before anything is computed."""

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer

from slicecast.errors import ConfigError, DeviceUnavailable, NotFound, ResourceError


def check_device(name: str) -> str:
    """Return the name of a device; raises DeviceUnavailable where PyTorch, seconds later, would know none."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise DeviceUnavailable(f"There is no device {name!r}. Use auto, cpu, cuda, cuda:N or mps.")
    return name


Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.", callback=check_device)]


def require_folder(folder: Path | None) -> Path | None:
    """Return the folder of the images; raises NotFound where there is none of that name."""
    if folder is not None and not folder.is_dir():
        raise NotFound(f"There is no folder {folder}. Give the folder of the images with --studies.")
    return folder


Studies = Annotated[
    Path,
    typer.Option(metavar="DIR", help="Folder of the images; labels and campaign lie in it.", callback=require_folder),
]


def check_output(
    path: Path | None, endings: Collection[str] = (), *, makes_folders: bool = False, keep: Path | None = None
) -> None:
    """Say before the work what would stop a file from being written at its end; None is none.

    Args:
        endings: that the name may have; empty for any.
        makes_folders: the file's folder is created where it is missing.
        keep: a file that is read, and must not be written over.

    Raises:
        ConfigError: another ending, a folder of that name, no folder for it, or the file to keep.
        ResourceError: the folder cannot be written to.
    """
    if path is None:
        return
    if endings and not path.name.lower().endswith(tuple(endings)):
        raise ConfigError(f"{path} must end in one of {', '.join(endings)}.")
    if path.is_dir():
        raise ConfigError(f"{path} is a folder. Give the name of a file in it.")
    if keep is not None and path.resolve() == keep.resolve():
        raise ConfigError(f"{path} is the scan itself, which would be lost. Give another name.")
    folder = next(place for place in path.absolute().parents if place.exists())
    if not folder.is_dir():
        raise ConfigError(f"{folder} is a file. Give a folder in its place.")
    if folder != path.absolute().parent and not makes_folders:
        raise ConfigError(f"The folder {path.parent} does not exist. Create it first.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ResourceError(f"{folder} cannot be written to. Give another place for {path.name}.")
