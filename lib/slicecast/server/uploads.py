"""Files that clients send, for as long as they are needed."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import HTTPException, UploadFile

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".dcm")
"""One file, complete in itself; headers that lead to other files (.nhdr, .mhd) are not taken."""


@contextmanager
def received(upload: UploadFile | None) -> Iterator[str | None]:
    """Put an upload into a temporary file, named as MONAI Label does, for as long as the block lasts.

    Raises:
        HTTPException: 422, it is of a kind that is not read.
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
        HTTPException: 422, it has another one.
    """
    name = (upload.filename or "").lower()
    if "." not in name:
        return ENDINGS[0]
    found = next((ending for ending in ENDINGS if name.endswith(ending)), None)
    if found is None:
        raise HTTPException(422, detail=f"Files such as '{name[-40:]}' are not read. Send {', '.join(ENDINGS)}.")
    return found
