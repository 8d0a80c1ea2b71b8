"""What a file may claim in its header, checked before ITK reads its voxels.

ITK believes headers. A negative number of dimensions in a MetaImage ends the process, so these headers are checked
word by word. NRRD and MetaImage headers can name any other file of the machine as the place of their voxels; in a file
from outside they must not.
"""

import logging
import math
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from itertools import islice
from pathlib import Path

import SimpleITK as sitk

from slicecast.errors import ReadingFull, VolumeError, VolumeTooLarge

WAIT_S = 10.0  # How long a volume waits for others to be read, before it is refused


class VoxelBudget:
    """Bounds the voxels that are read at once: many volumes that each fit can together fill memory. Thread-safe.

    Args:
        most: voxels at once; one volume alone may have more. Default: any number, as on the command line, which reads
            one volume at a time; the server sets it (`limits` in `configs/server.yaml`).
        wait_s: how long to wait for room.
    """

    def __init__(self, most: int | None = None, *, wait_s: float = WAIT_S) -> None:
        self.most = most
        self._wait_s = wait_s
        self._taken = 0
        self._changed = threading.Condition()

    def take(self, voxels: int) -> None:
        """Wait until there is room for so many voxels, and take it; raises ReadingFull if there was none in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._fits(voxels), self._wait_s):
                raise ReadingFull(
                    f"The server is reading other scans of {self._taken >> 20} million voxels, and has no memory for "
                    f"{voxels >> 20} million more at the same time. Try again in a few seconds."
                )
            self._taken += voxels

    def give(self, voxels: int) -> None:
        """Give room back."""
        with self._changed:
            self._taken -= voxels
            self._changed.notify_all()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hold, until the block ends, what `claim` takes in it."""
        claims: list[int] = []
        token = _claims.set((self, claims))
        try:
            yield
        finally:
            _claims.reset(token)
            self.give(sum(claims))

    def _fits(self, voxels: int) -> bool:
        return self.most is None or not self._taken or self._taken + voxels <= self.most


_claims: ContextVar[tuple[VoxelBudget, list[int]] | None] = ContextVar("slicecast_voxel_claims", default=None)

READING = VoxelBudget()  # The budget of this process


def claim(voxels: int) -> None:
    """Take room for a volume whose header was read, once for each reading; nothing outside `VoxelBudget.reading`.

    Raises:
        ReadingFull: there was none in time.
    """
    found = _claims.get()
    if found is not None and not found[1]:
        found[0].take(voxels)
        found[1].append(voxels)


logger = logging.getLogger(__name__)

MAX_VOXELS = 1 << 30  # A volume with more is not read unless the caller allows it; 1024 x 1024 x 1024

_MAX_LINES = 4096
_MAX_LINE_BYTES = 1 << 16
_LOCAL = "local"

_META_DIMENSIONS = ("2", "3", "4")
_META_TYPES = tuple(f"MET_{word}" for word in (
    "CHAR", "UCHAR", "SHORT", "USHORT", "INT", "UINT", "LONG", "ULONG", "LONG_LONG", "ULONG_LONG", "FLOAT", "DOUBLE"
))  # fmt: skip
_META_VECTORS = ("elementspacing", "elementsize", "offset", "position", "origin", "centerofrotation")
_META_MATRICES = ("transformmatrix", "rotation", "orientation")
_META_LINE_BYTES = 4096
_NOISE = re.compile(r"^(Exception thrown in .*|/\S+:\d+:|.*ITK ERROR: ?|sitk::ERROR: ?)", re.MULTILINE)
"""What surrounds the reason in the text of an ITK exception."""


def check_data_file(path: Path) -> None:
    """Check that an NRRD or MetaImage header does not lead to a file elsewhere, and that a MetaImage's can be read.

    Raises:
        VolumeError: the header places the voxels outside the file (.nrrd, .mha), or outside its folder (.nhdr, .mhd);
            the header is damaged.
    """
    detached = path.suffix.lower() in (".nhdr", ".mhd")
    nrrd = path.suffix.lower() in (".nrrd", ".nhdr")
    entries = _entries(path, ":" if nrrd else "=", end="" if nrrd else "elementdatafile")
    if not nrrd:
        _require_meta(entries, path)
    for name in [value for key, value in entries if key == ("datafile" if nrrd else "elementdatafile")]:
        if name.lower() == _LOCAL:
            continue
        if not detached:
            raise VolumeError(f"{path} says that its voxels lie in another file, {name[:80]!r}. Save it as one file.")
        if not _is_in_same_folder(path, name):
            raise VolumeError(
                f"{path} says that its voxels lie in {name[:80]!r}; only one file beside it is read. Save it as .nrrd."
            )


def require_size(size: Sequence[int], source: object, *, max_voxels: int) -> None:
    """Refuse a volume that claims more voxels than `max_voxels`, and take room for one that does not.

    Raises:
        VolumeTooLarge: it claims more.
        ReadingFull: there is no room beside what others read.
    """
    voxels = math.prod(size)
    if voxels > max_voxels:
        raise VolumeTooLarge(
            f"{source} claims {' x '.join(map(str, size))} voxels; at most {max_voxels} are read. "
            "Crop or resample it, or raise the limit."
        )
    claim(voxels)


def require_scalar(components: int, kind: str, source: object) -> None:
    """Raise VolumeError for colour, vector and complex voxels."""
    if components != 1 or "complex" in kind:
        raise VolumeError(
            f"{source} holds {components} numbers per voxel ({kind}), such as colour or vectors. "
            "Give a scan of one number per voxel."
        )


def require_3d(size: Sequence[int], source: object) -> None:
    """Raise VolumeError for a 2D image, and for several volumes in one file."""
    if len(size) < 3:
        raise VolumeError(f"{source} is a 2D image of {' x '.join(map(str, size))} pixels. Give a volume.")
    volumes = math.prod(size[3:])
    if volumes > 1:
        raise VolumeError(
            f"{source} holds {volumes} volumes ({' x '.join(map(str, size))}). Split it and give one 3D volume."
        )


def open_image(path: Path, image_io: str) -> sitk.ImageFileReader:
    """Let one of ITK's readers read a file's header.

    Args:
        image_io: ITK's name of the reader; left to itself ITK would guess from the content, and try a dozen others.

    Raises:
        VolumeError: there is more than one number per voxel.
        RuntimeError: ITK cannot read it; `reason` says why.
    """
    quiet_itk()
    reader = sitk.ImageFileReader()
    reader.SetImageIO(image_io)
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    require_scalar(reader.GetNumberOfComponents(), sitk.GetPixelIDValueAsString(reader.GetPixelID()), path)
    return reader


class _LogInsteadOfStderr(sitk.LoggerBase):
    """Sends what ITK would print to the console to this module's logger."""

    def DisplayText(self, text: str) -> None:
        logger.debug(text.strip())

    DisplayErrorText = DisplayWarningText = DisplayGenericOutputText = DisplayDebugText = DisplayText

    def __str__(self) -> str:
        return "slicecast log"


@cache
def quiet_itk() -> sitk.LoggerBase:
    """Route ITK's console messages to `logging` (debug level), from the first read on."""
    log = _LogInsteadOfStderr()
    log.SetAsGlobalITKLogger()
    return log


def reason(error: RuntimeError) -> str:
    """Shorten an ITK exception to its own reason, one line, without file names of ITK's sources."""
    text = _NOISE.sub("", str(error))
    text = re.sub(r"\w+\(0x[0-9a-f]+\): ?", "", text)
    return " ".join(text.split())[:200].rstrip(". ") or "unknown reason"


def _is_in_same_folder(path: Path, name: str) -> bool:
    """Whether a name is a single file in the header's folder; `LIST` and patterns would stand for further names."""
    if "\0" in name or len(Path(name).parts) != 1 or name.upper().startswith("LIST"):
        return False
    file = path.parent / name
    return file.is_file() and file.resolve().parent == path.parent.resolve()


def _entries(path: Path, separator: str, *, end: str) -> list[tuple[str, str]]:
    """Return the lines of a header as keys (without spaces, lower case) and values, up to the key `end`."""
    found: list[tuple[str, str]] = []
    with path.open("rb") as stream:
        if separator == ":" and stream.peek(4)[:4] not in (b"NRRD", b""):
            raise VolumeError(f"{path} is not in the format its name says, or is damaged. Export it again.")
        for line in islice(iter(lambda: stream.readline(_MAX_LINE_BYTES), b""), _MAX_LINES + 1):
            if not line.strip():
                return found
            key, _, value = line.decode("latin-1").partition(separator)
            found.append(("".join(key.split()).lower(), value.strip()))
            if end and found[-1][0] == end:  # the voxels begin here
                return found
    if len(found) > _MAX_LINES:
        raise VolumeError(f"{path} is damaged: its header has no end. Export it again.")
    return found


def _require_meta(entries: Sequence[tuple[str, str]], path: Path) -> None:
    """Raise VolumeError for a MetaImage header whose numbers do not fit together."""
    fields = dict(entries)
    if len(fields) != len(entries) or not {"ndims", "dimsize", "elementtype", "elementdatafile"} <= fields.keys():
        raise VolumeError(f"{path} is damaged: lines of its header are missing, or there twice. Export it again.")
    count = int(fields["ndims"]) if fields["ndims"] in _META_DIMENSIONS else 0
    for key, value in entries:
        if not count or len(value) > _META_LINE_BYTES or not _fits_meta(key, value, count):
            raise VolumeError(f"{path} is damaged: its header says {key[:40]!r} = {value[:60]!r}. Export it again.")


def _fits_meta(key: str, value: str, dimensions: int) -> bool:
    """Whether a value is of the kind that its key needs."""
    words = value.split()
    if key == "dimsize":
        return len(words) == dimensions and all(word.isdecimal() and 0 < int(word) < 1 << 31 for word in words)
    if key in _META_VECTORS:
        return len(words) == dimensions and all(map(_is_number, words))
    if key in _META_MATRICES:
        return len(words) == dimensions**2 and all(map(_is_number, words))
    if key == "elementtype":
        return value.upper() in _META_TYPES
    if key == "elementnumberofchannels":
        return value.isdecimal() and 1 <= int(value) <= 64
    return key not in ("headersize", "compresseddatasize", "id", "parentid") or _is_number(value)


def _is_number(word: str) -> bool:
    try:
        return math.isfinite(float(word)) and abs(float(word)) < 1e30
    except ValueError:
        return False
