"""Uploads: MONAI Label's upload sessions, and safe unpacking of the archives that clients send.

Names inside an archive are not used (each file is numbered), so none can lead out of the folder. Links, devices and
folders are left out. Bytes are counted while they are unpacked, because the sizes that an archive states can be false.
"""

import bz2
import gzip
import io
import lzma
import re
import shutil
import tarfile
import tempfile
import time
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

from monailabel.utils.sessions import SessionInfo, Sessions

from slicecast.errors import InputError, SlicecastError, TooLarge
from slicecast.inference.caller import current_caller
from slicecast.inference.settings import request_limits

CHUNK_BYTES = 1 << 20
HEADER_BYTES = 32 << 20  # Limit for all headers and padding of a tar together
ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".dcm")  # The only part of its name that an unpacked file keeps

PACKED: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
"""How to open a compressed tar, by its first bytes."""

DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, NotImplementedError)


def unpack(archive: Path, folder: Path, *, max_bytes: int, max_files: int) -> list[Path]:
    """Unpack the files of a ZIP or tar archive into a folder, numbered in their order.

    Raises:
        TooLarge: it holds more.
        InputError: it is no archive, is damaged, or holds no file.
    """
    budget, found = _Budget(max_bytes), list[Path]()
    try:
        with archive.open("rb") as stream:
            for name, content in _members(stream, budget):
                if len(found) == max_files:
                    raise TooLarge(f"The archive holds more than {max_files} files. Send fewer at a time.")
                target = folder / f"{len(found):05d}{_ending(name)}"
                found.append(target)
                with target.open("xb") as file:
                    while chunk := content.read(CHUNK_BYTES):
                        budget.take(len(chunk))
                        file.write(chunk)
    except (*DAMAGED, RuntimeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("The archive cannot be unpacked; it is damaged or locked. Send a ZIP or tar.") from error
    if not found:
        raise InputError("The archive holds no file. Send the files of one scan.")
    return found


class _Budget:
    """The number of bytes that may still be unpacked."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.taken = 0

    def take(self, count: int) -> None:
        self.taken += count
        if self.taken > self._most:
            raise self.exceeded()

    def exceeded(self) -> TooLarge:
        return TooLarge(f"The archive holds more than {self._most >> 20} MiB. Send fewer or smaller files.")


class _Counted(io.RawIOBase):
    """A stream with a limit on bytes that belong to no file: tarfile holds all headers in memory."""

    def __init__(self, stream: Any, budget: _Budget) -> None:
        self._stream = stream
        self._budget = budget
        self._came = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        content: bytes = self._stream.read(min(size, CHUNK_BYTES) if size >= 0 else CHUNK_BYTES)
        self._came += len(content)
        if self._came - self._budget.taken > HEADER_BYTES:
            raise self._budget.exceeded()
        return content


def _members(stream: BinaryIO, budget: _Budget) -> Iterator[tuple[str, IO[bytes]]]:
    return _zipped(stream) if zipfile.is_zipfile(stream) else _tarred(stream, budget)


def _zipped(stream: BinaryIO) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(stream) as archive:
        for entry in archive.infolist():
            is_link = (entry.external_attr >> 16) & 0o170000 == 0o120000
            if not entry.is_dir() and not is_link:
                with archive.open(entry) as content:
                    yield entry.filename, content


def _tarred(stream: BinaryIO, budget: _Budget) -> Iterator[tuple[str, IO[bytes]]]:
    stream.seek(0)
    start = stream.read(8)
    stream.seek(0)
    opener = next((opener for magic, opener in PACKED.items() if start.startswith(magic)), None)
    with _plain(stream, opener) as plain, tarfile.open(fileobj=_Counted(plain, budget), mode="r|") as archive:
        for entry in archive:
            content = archive.extractfile(entry) if entry.isreg() else None
            if content is not None:
                yield entry.name, content


@contextmanager
def _plain(stream: BinaryIO, opener: Callable[[Any], Any] | None) -> Iterator[Any]:
    if opener is None:
        yield stream
        return
    with opener(stream) as opened:
        yield opened


def _ending(name: str) -> str:
    return next((ending for ending in ENDINGS if name.lower().endswith(ending)), ".dcm")


OWNER = "owner"  # File in an upload session's folder that names who sent it

UPLOAD = re.compile(r"tmp[a-z0-9_]{8}(\.[A-Za-z0-9_.]{1,40})?")
"""How MONAI Label names a received file in the temporary folder; eight random characters cannot be guessed."""


def is_upload_name(path: Path) -> bool:
    """Tell whether a path is named as MONAI Label names received files, in the temporary folder; it need not exist."""
    if not UPLOAD.fullmatch(path.name) or "\0" in str(path):
        return False
    return path.resolve().parent == Path(tempfile.gettempdir()).resolve()


def is_upload(path: Path) -> bool:
    """Tell whether a path is a file that MONAI Label has just received."""
    return is_upload_name(path) and path.is_file()


class UploadInfo(SessionInfo):
    """An upload session; what is told of it names no folder of the server."""

    def to_json(self, indent: int | None = None) -> dict[str, Any]:
        """Describe the session for its client."""
        told: dict[str, Any] = super().to_json(indent)
        return {**told, "path": "", "image": Path(self.image).name}


class SafeSessions(Sessions):
    """MONAI Label's upload sessions with random ids and owners.

    What is not a UUID is unknown, because ids become paths; so is, where users log in, what another user has sent.
    """

    def add_session(
        self, data_file: str, expiry: int = 0, uncompress: bool = False, session_id: str | None = None
    ) -> tuple[str, SessionInfo]:
        """Store an upload under a new id; an archive becomes its one file, or a folder of its files."""
        if not uncompress or Path(data_file).is_dir():
            return self._added(data_file, expiry)
        try:
            return self._unpacked(Path(data_file), expiry)
        except SlicecastError:  # MONAI Label removes the received file only after success
            if is_upload_name(Path(data_file).parent):
                shutil.rmtree(Path(data_file).parent, ignore_errors=True)
            raise

    def _unpacked(self, archive: Path, expiry: int) -> tuple[str, SessionInfo]:
        limits = request_limits()
        with tempfile.TemporaryDirectory() as work:
            folder = Path(work) / "image"
            folder.mkdir()
            most = limits.unpacked_mb << 20
            files = unpack(archive, folder, max_bytes=most, max_files=limits.files)
            return self._added(str(files[0] if len(files) == 1 else folder), expiry)

    def _added(self, image: str, expiry: int) -> tuple[str, SessionInfo]:
        """Store an image for the caller; MONAI Label's own ids are of the time and can be guessed."""
        session_id = str(uuid.uuid4())
        folder = Path(self.store_path) / session_id
        folder.mkdir(parents=True)
        (folder / OWNER).write_text(current_caller().user or "", encoding="utf-8")
        _, info = super().add_session(image, expiry, False, session_id)
        return session_id, UploadInfo(info.__dict__)

    def _may_use(self, session_id: str) -> bool:
        caller, owner = current_caller(), Path(self.store_path) / session_id / OWNER
        if caller.may("admin"):
            return True
        return owner.is_file() and owner.read_text(encoding="utf-8") == caller.user

    def get_session(self, session_id: str, update_ts: bool = True, fetch_cache: bool = True) -> SessionInfo | None:
        """Return a session that the caller may use, or None."""
        if not _is_id(session_id) or not self._may_use(session_id):
            return None
        info = super().get_session(session_id, update_ts, fetch_cache)
        return None if info is None else UploadInfo(info.__dict__)

    def remove_session(self, session_id: str) -> None:
        """Remove a session and its files."""
        if _is_id(session_id) and self._may_use(session_id):
            super().remove_session(session_id)

    def remove_expired(self) -> int:
        """Remove expired sessions and folders without a record; return their number."""
        folder = Path(self.store_path)
        names = [entry.name for entry in folder.iterdir() if entry.is_dir()] if folder.is_dir() else []
        over = [name for name in names if _is_id(name) and self._is_over(name)]
        for name in over:
            self.remove_session(name)
        return len(over)

    def _is_over(self, name: str) -> bool:
        info = self.get_session(name, update_ts=False, fetch_cache=False)
        return info is None or (info.expiry > 0 and info.last_access_ts + info.expiry < time.time())


def _is_id(value: Any) -> bool:
    try:
        return str(uuid.UUID(value)) == value
    except (AttributeError, TypeError, ValueError):
        return False
