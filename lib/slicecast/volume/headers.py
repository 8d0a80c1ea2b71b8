"""What a file may claim in its header: its voxels lie in it or beside it, and there are not too many of them.

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


def check_data_place(path: Path) -> None:
    """Check that an NRRD or MetaImage header does not lead to a file elsewhere.

    Raises:
        VolumeError: the voxels are said to lie outside the file (.nrrd, .mha), or outside its folder (.nhdr, .mhd).
    """
    detached = path.suffix.lower() in (".nhdr", ".mhd")
    for name in _data_files(path):
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


def _data_files(path: Path) -> list[str]:
    """Return the places that a header names: values of `data file:` (NRRD) and `ElementDataFile =` (MetaImage)."""
    separator, keys = (":", ("datafile",)) if path.suffix.lower() in (".nrrd", ".nhdr") else ("=", ("elementdatafile",))
    found, seen = [], 0
    with path.open("rb") as stream:
        if separator == ":" and stream.peek(4)[:4] not in (b"NRRD", b""):
            raise VolumeError(f"{path} is not in the format its name says, or is damaged. Export it again.")
        for line in islice(iter(lambda: stream.readline(_MAX_LINE_BYTES), b""), _MAX_LINES + 1):
            seen += 1
            if not line.strip():
                break
            key, _, value = line.decode("latin-1").partition(separator)
            if "".join(key.split()).lower() in keys:
                found.append(value.strip())
                if separator == "=":  # MetaImage: the voxels begin here
                    break
    if seen > _MAX_LINES:
        raise VolumeError(f"{path} is damaged: its header has no end. Export it again.")
    return found
