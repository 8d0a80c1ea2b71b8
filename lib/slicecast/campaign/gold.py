"""The hidden truths of gold cases: label files in the campaign's folder, named after their cases."""

import hashlib
import shutil
from pathlib import Path

from slicecast.errors import InputError, NotFound

FOLDER = "gold"
"""In the campaign's folder."""

ENDINGS = (".nii.gz", ".nrrd", ".nii", ".mha")


def keep_truth(folder: Path, case: str, truth: Path) -> str:
    """Copy a label file into the campaign's folder; return its SHA-256.

    Raises:
        NotFound: there is no such file.
        InputError: its format is no label's.
    """
    if not truth.is_file():
        raise NotFound(f"There is no file {truth}. Give the case's true label.")
    ending = next((ending for ending in ENDINGS if truth.name.endswith(ending)), None)
    if ending is None:
        raise InputError(f"{truth} ends in none of {', '.join(ENDINGS)}. Convert it.")
    target = folder / FOLDER / f"{case}{ending}"
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".writing-{target.name}")
    shutil.copyfile(truth, temporary)
    temporary.replace(target)
    with target.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def find_truth(folder: Path, case: str) -> Path | None:
    """Return a case's true label, or None."""
    found = (folder / FOLDER / f"{case}{ending}" for ending in ENDINGS)
    return next((path for path in found if path.is_file()), None)
