"""Files that clients send, and names: of images, tags and files, which become names of files and lines of a log."""

import shutil
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

from fastapi import UploadFile

from slicecast.errors import InputError

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".dcm")
"""One file, complete in itself; headers that lead to other files (.nhdr, .mhd) are not taken."""
MAX_NAME_BYTES = 255
"""Of a file's name, on every file system there is; ids and tags become such names."""


@contextmanager
def received(upload: UploadFile | None) -> Iterator[str | None]:
    """Put an upload into a temporary file, named as MONAI Label does, for as long as the block lasts.

    Raises:
        InputError: it is of a kind that is not read.
    """
    if upload is None:
        yield None
        return
    with tempfile.NamedTemporaryFile(suffix=upload_ending(upload)) as stream:
        shutil.copyfileobj(upload.file, stream)
        stream.flush()
        yield stream.name


def upload_ending(upload: UploadFile) -> str:
    """Return the ending of a sent file's name, one of ENDINGS; nothing else of the name is used.

    Raises:
        InputError: it has another one.
    """
    name = (upload.filename or "").lower()
    if "." not in name:
        return ENDINGS[0]
    found = next((ending for ending in ENDINGS if name.endswith(ending)), None)
    if found is None:
        raise InputError(f"Files such as '{name[-40:]}' are not read. Send {', '.join(ENDINGS)}.")
    return found


def require_plain_text(text: str, what: str) -> None:
    """Raise InputError for text with control characters, or too long for a name."""
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise InputError(f"'{what}' holds control characters. Use a plain name.")
    if len(text.encode()) > MAX_NAME_BYTES:
        raise InputError(f"'{what}' is longer than {MAX_NAME_BYTES} bytes. Use a shorter name.")


def require_file_name(name: str) -> None:
    """Raise InputError for the name of a sent file that is no name, or a path upwards."""
    require_plain_text(name, "filename")
    if PurePosixPath(name.replace("\\", "/")).name in ("", ".", ".."):
        raise InputError(f"'{name}' is no name of a file. Send one such as scan.nii.gz.")
