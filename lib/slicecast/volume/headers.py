"""What a file may claim in its header: its voxels lie in it or beside it, and there are not too many of them.

The header of a MetaImage is checked word by word, because ITK's reader believes it and ends the process: a negative
number of dimensions is enough.

NRRD and MetaImage headers can name any other file of the machine as the place of their voxels. A file that somebody
else has sent must not.
"""

import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from slicecast.errors import VolumeError, VolumeTooLarge

MAX_VOXELS = 1 << 30
"""A volume with more is not read unless the caller allows it; 1024 x 1024 x 1024."""

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


def check_data_place(path: Path) -> None:
    """Check that an NRRD or MetaImage header does not lead to a file elsewhere, and that a MetaImage's can be read.

    Raises:
        VolumeError: the voxels are said to lie outside the file (.nrrd, .mha), or outside its folder (.nhdr, .mhd);
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
        if not _is_beside(path, name):
            raise VolumeError(
                f"{path} says that its voxels lie in {name[:80]!r}; only one file beside it is read. Save it as .nrrd."
            )


def require_size(size: Sequence[int], source: object, *, max_voxels: int) -> None:
    """Raise VolumeTooLarge for a volume that claims more voxels than `max_voxels`."""
    voxels = math.prod(size)
    if voxels > max_voxels:
        raise VolumeTooLarge(
            f"{source} claims {' x '.join(map(str, size))} voxels; at most {max_voxels} are read. "
            "Crop or resample it, or raise the limit."
        )


def _is_beside(path: Path, name: str) -> bool:
    """Whether a name is one file of the header's folder; `LIST` and patterns stand for other names."""
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
    said = dict(entries)
    if len(said) != len(entries) or not {"ndims", "dimsize", "elementtype", "elementdatafile"} <= said.keys():
        raise VolumeError(f"{path} is damaged: lines of its header are missing, or there twice. Export it again.")
    count = int(said["ndims"]) if said["ndims"] in _META_DIMENSIONS else 0
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
