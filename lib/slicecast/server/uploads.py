"""Files that clients send, for as long as they are needed."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastapi import UploadFile


@contextmanager
def received(upload: UploadFile | None) -> Iterator[str | None]:
    """Put an upload into a temporary file, named as MONAI Label does, for as long as the block lasts."""
    if upload is None:
        yield None
        return
    suffix = "".join(Path(upload.filename or "").suffixes[-2:]) or ".nii.gz"
    with tempfile.NamedTemporaryFile(suffix=suffix) as stream:
        shutil.copyfileobj(upload.file, stream)
        stream.flush()
        yield stream.name
