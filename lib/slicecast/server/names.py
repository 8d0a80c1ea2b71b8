"""Names that clients send: of images, tags and files. They become names of files and lines of a log."""

import unicodedata
from pathlib import PurePosixPath

from fastapi import HTTPException

MAX_NAME_BYTES = 255
"""Of a file's name, on every file system there is; ids and tags become such names."""


def require_plain_text(text: str, what: str) -> None:
    """Raise HTTPException (422) for text with control characters, or too long for a name."""
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise HTTPException(422, detail=f"'{what}' holds control characters. Use a plain name.")
    if len(text.encode()) > MAX_NAME_BYTES:
        raise HTTPException(422, detail=f"'{what}' is longer than {MAX_NAME_BYTES} bytes. Use a shorter name.")


def require_file_name(name: str) -> None:
    """Raise HTTPException (422) for the name of a sent file that is no name, or a path upwards."""
    require_plain_text(name, "filename")
    if PurePosixPath(name.replace("\\", "/")).name in ("", ".", ".."):
        raise HTTPException(422, detail=f"'{name}' is no name of a file. Send one such as scan.nii.gz.")
