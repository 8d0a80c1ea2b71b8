"""Whether a file or DICOM folder can be read as one 3D scan, by its headers and its length, without its voxels."""

import math
import struct
from pathlib import Path

import SimpleITK as sitk

from slicecast.errors import GeometryError, VolumeError
from slicecast.volume.dicom import check_series
from slicecast.volume.grid import Geometry
from slicecast.volume.headers import MAX_VOXELS
from slicecast.volume.nifti import check_nifti
from slicecast.volume.reading import NIFTI_ENDINGS, open_itk, read_volume, require_file

_GZIP_LENGTH = struct.Struct("<I")
"""The last bytes of a gzip file: the length of what it holds, modulo 2^32."""


def check_scan(path: Path, *, max_voxels: int = MAX_VOXELS) -> None:
    """Check that `read_volume` will most likely read a scan: it is there, 3D, on a usable grid, and whole.

    A file is read completely only where its length does not agree with its header.

    Raises:
        VolumeError: it cannot be read.
    """
    ending = require_file(path)
    try:
        if not ending:
            check_series(path, max_voxels=max_voxels)
        elif ending in NIFTI_ENDINGS:
            if not _may_hold(path, check_nifti(path, max_voxels=max_voxels)):
                read_volume(path, max_voxels=max_voxels)
        elif ending == ".dcm" or not _may_hold_itk(path, max_voxels):
            read_volume(path, max_voxels=max_voxels)
    except GeometryError as error:
        raise VolumeError(f"{path} has an unusable grid: {error}") from error


def _may_hold(path: Path, wanted: int) -> bool:
    """Tell whether a file's length agrees with the bytes that its header claims."""
    size = path.stat().st_size
    if not path.name.lower().endswith(".gz"):
        return size >= wanted
    with path.open("rb") as file:
        file.seek(-min(size, _GZIP_LENGTH.size), 2)
        end = file.read()
    return len(end) == _GZIP_LENGTH.size and _GZIP_LENGTH.unpack(end)[0] == wanted % (1 << 32)


def _may_hold_itk(path: Path, max_voxels: int) -> bool:
    """Tell whether an uncompressed file is as long as its header claims; compressed ones must be read."""
    reader = open_itk(path, max_voxels=max_voxels)
    Geometry.from_image(reader)  # type: ignore[arg-type]
    return _ITEM_BYTES.get(reader.GetPixelID(), 8) * math.prod(reader.GetSize()) <= path.stat().st_size


_ITEM_BYTES = {
    **dict.fromkeys((sitk.sitkInt8, sitk.sitkUInt8), 1),
    **dict.fromkeys((sitk.sitkInt16, sitk.sitkUInt16), 2),
    **dict.fromkeys((sitk.sitkInt32, sitk.sitkUInt32, sitk.sitkFloat32), 4),
}
