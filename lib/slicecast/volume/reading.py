"""Read a scan from any supported file into a Volume, and write masks and volumes on its grid.

What is not one 3D scan of numbers is refused with a VolumeError of one or two sentences. What is unusual but
usable is read, logged, and listed in `Volume.warnings`.
"""

import errno
import json
import logging
import math
import os
import re
import shutil
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from slicecast.errors import GeometryError, ReadingFull, VolumeError
from slicecast.files import appearing
from slicecast.volume.dicom import check_series, read_dicom_file, read_series
from slicecast.volume.grid import Geometry, Volume
from slicecast.volume.headers import (
    MAX_VOXELS,
    READING,
    check_data_file,
    open_image,
    quiet_itk,
    reason,
    require_3d,
    require_size,
)
from slicecast.volume.nifti import check_nifti, read_nifti

logger = logging.getLogger(__name__)

NIFTI_ENDINGS = (".nii", ".nii.gz")
WRITTEN_ENDINGS = (*NIFTI_ENDINGS, ".nrrd", ".mha")
READ_ENDINGS = (*WRITTEN_ENDINGS, ".nhdr", ".mhd", ".dcm")
ITK_READER = {".nrrd": "NrrdImageIO", ".nhdr": "NrrdImageIO", ".mha": "MetaImageIO", ".mhd": "MetaImageIO"}


def read_volume(path: str | os.PathLike[str], *, max_voxels: int = MAX_VOXELS) -> Volume:
    """Read a NIfTI, NRRD, MHA or DICOM file, or the DICOM series of a folder.

    Whole numbers keep their type (64-bit and needlessly wide ones are narrowed), float64 becomes float32.
    NaN and infinite voxels become the smallest finite value, with a warning.

    Raises:
        VolumeError: the path is missing or holds no single 3D scan of numbers, or of more than `max_voxels`.
        ReadingFull: too many voxels are being read already.
    """
    source = Path(path)
    with READING.reading():
        try:
            found = _read(source, max_voxels)
        except GeometryError as error:
            raise VolumeError(f"{source} has an unusable grid: {error}") from error
        array, repaired = _without_nan(_narrowed(found.array), source)
    warnings = (*found.warnings, *repaired)
    for warning in warnings:
        logger.warning("%s: %s", source.name, warning)
    return Volume(array, found.geometry, {**found.meta, "source": str(source), "warnings": warnings})


@contextmanager
def without_folders(path: Path, name: str | None = None) -> Iterator[None]:
    """Leave the folders out of a VolumeError about `path`: clients should not learn the server's paths."""
    try:
        yield
    except VolumeError as error:
        raise type(error)(str(error).replace(str(path), name or path.name)) from error


def write_mask(path: str | os.PathLike[str], array: np.ndarray, geometry: Geometry, *, compress: bool = True) -> Path:
    """Write a mask [k, j, i] (bool, or whole numbers 0 to 255 of any type) as uint8; the file appears whole or not.

    Raises:
        VolumeError: the ending or folder is unusable, or the numbers do not fit uint8.
        GeometryError: the array's shape is not the grid's.
    """
    numbers = np.asarray(array)
    if numbers.dtype.kind == "f" and (numbers != np.round(numbers)).any():
        raise VolumeError("A mask with fractions, such as probabilities, cannot be written. Give whole numbers.")
    if numbers.dtype.kind not in "buif" or (numbers.size and (numbers.min() < 0 or numbers.max() > 255)):
        raise VolumeError(
            f"A mask of {numbers.dtype} numbers beyond 0 to 255 cannot be written. Give bool or uint8 labels."
        )
    return write_volume(path, Volume(numbers.astype(np.uint8, copy=False), geometry), compress=compress)


def write_volume(path: str | os.PathLike[str], volume: Volume, *, compress: bool = True) -> Path:
    """Write a volume as .nii, .nii.gz, .nrrd or .mha; the file appears whole or not at all.

    Raises:
        VolumeError: the ending is unknown or the folder does not exist.
    """
    target = Path(path)
    ending = _ending(target, WRITTEN_ENDINGS)
    if not target.parent.is_dir():
        raise VolumeError(f"The folder {target.parent} does not exist. Create it first.")
    quiet_itk()
    image = volume.geometry.to_image(volume.array)
    try:
        with appearing(target, synced=False, ending=ending) as part:
            sitk.WriteImage(image, str(part), useCompression=compress and ending != ".nii")
            if not is_whole(part, ending, image.GetNumberOfPixels() * image.GetSizeOfPixelComponent()):
                raise OSError(errno.ENOSPC, f"There was no room for {target}")
    except RuntimeError as error:
        full = shutil.disk_usage(target.parent).free < volume.array.nbytes  # ITK does not say why it failed
        raise OSError(errno.ENOSPC if full else errno.EIO, f"Cannot write {target}: {reason(error)}") from error
    return target


_NIFTI_HEADER = 352  # Bytes, with those that tell of extensions
_GZIP_COUNT = 4  # Bytes at the end of a gzip stream, the length of what was packed modulo 2**32 (RFC 1952, 2.3.1)


def is_whole(file: Path, ending: str, voxel_bytes: int) -> bool:
    """Tell whether a NIfTI, NRRD or MetaImage file as ITK writes it, of so many bytes of voxels, goes to its end.

    On a full disk ITK leaves some out and says nothing.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(1 << 16)
        stream.seek(max(0, size - _GZIP_COUNT))
        packed = int.from_bytes(stream.read(), "little")
    if ending == ".nii.gz":
        return packed == (_NIFTI_HEADER + voxel_bytes) % 2**32
    start = {".nii": _NIFTI_HEADER, ".nrrd": head.find(b"\n\n") + 2, ".mha": head.find(b"LOCAL\n") + 6}[ending]
    if b"encoding: gzip" in head[:start]:
        return packed == voxel_bytes % 2**32
    said = re.search(rb"CompressedDataSize = (\d+)", head[:start])
    return size == start + (int(said[1]) if said else voxel_bytes)


def require_file(source: Path) -> str:
    """Return the ending of a file that could be a scan; "" for a folder.

    Raises:
        VolumeError: there is none of that name, it is empty, or its ending is unknown.
    """
    if not source.exists():
        raise VolumeError(f"There is no file {source}. Check the path.")
    if source.is_dir():
        return ""
    ending = _ending(source, READ_ENDINGS)
    if source.stat().st_size == 0:
        raise VolumeError(f"{source} is empty (0 bytes). Copy or export it again.")
    return ending


def stem_of(path: Path) -> str:
    """Return the name of a NIfTI, NRRD or MHA file without its ending; of another file its whole name."""
    ending = max((end for end in WRITTEN_ENDINGS if path.name.lower().endswith(end)), key=len, default="")
    return path.name[: len(path.name) - len(ending)]


def _read(source: Path, max_voxels: int) -> Volume:
    ending = require_file(source)
    if not ending:
        return read_series(source, max_voxels=max_voxels)
    if ending == ".dcm":
        return read_dicom_file(source, max_voxels=max_voxels)
    if ending in NIFTI_ENDINGS:
        return Volume(*read_nifti(source, max_voxels=max_voxels))
    return _read_itk(source, max_voxels)


def _ending(path: Path, known: tuple[str, ...]) -> str:
    name = path.name.lower()
    found = [ending for ending in known if name.endswith(ending)]
    if not found:
        raise VolumeError(f"{path} ends in none of {', '.join(known)}. Convert it, or give it its right ending.")
    return max(found, key=len)


def _read_itk(source: Path, max_voxels: int) -> Volume:
    try:
        reader = open_itk(source, max_voxels=max_voxels)
        size = reader.GetSize()
        reader.SetExtractSize([*size[:3], *[0] * (len(size) - 3)])
        return Volume.from_image(reader.Execute())
    except ReadingFull:
        raise
    except RuntimeError as error:
        raise VolumeError(_explain(source, reason(error))) from error


def open_itk(source: Path, *, max_voxels: int) -> sitk.ImageFileReader:
    """Read the header of an NRRD or MetaImage file.

    Raises:
        VolumeError: it is damaged, not 3D, or claims more than `max_voxels`.
    """
    check_data_file(source)
    try:
        reader = open_image(source, ITK_READER[_ending(source, READ_ENDINGS)])
    except RuntimeError as error:
        raise VolumeError(_explain(source, reason(error))) from error
    require_3d(reader.GetSize(), source)
    require_size(reader.GetSize(), source, max_voxels=max_voxels)
    return reader


def _explain(source: Path, why: str) -> str:
    if "Unable to determine ImageIO" in why:
        return f"{source} is not in the format its name says, or is damaged. Export it again."
    return f"{source} is cut off or damaged and cannot be read. Copy or export it again. (ITK says: {why[:120]})"


def _narrowed(array: np.ndarray) -> np.ndarray:
    """Narrow a type that is wider than its content needs: float64 to float32, int32 and wider to int16."""
    if array.dtype == np.float64:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is reported as such
            return array.astype(np.float32)
    if array.dtype.kind not in "iu" or array.dtype.itemsize <= 2:
        return array
    low, high = int(array.min()), int(array.max())
    for narrow in (np.int16, np.uint16, np.int32):
        if np.iinfo(narrow).min <= low and high <= np.iinfo(narrow).max:
            return array.astype(narrow)
    return array.astype(np.float32)


def _without_nan(array: np.ndarray, source: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Replace NaN and infinite voxels, in place, by the smallest finite one; return a warning if there were any."""
    if array.dtype.kind != "f":
        return array, ()
    bad = ~np.isfinite(array)
    count = int(np.count_nonzero(bad))
    if count == 0:
        return array, ()
    if count == array.size:
        raise VolumeError(f"{source} holds no finite number: every voxel is NaN or infinite. Export it again.")
    lowest = float(array[~bad].min())
    array[bad] = lowest
    return array, (f"{count} voxels were NaN or infinite and were set to the smallest value, {lowest:g}.",)


_GZIP_LENGTH = struct.Struct("<I")  # The last bytes of a gzip file: the length of what it holds, modulo 2^32


def check_scan(path: Path) -> None:
    """Check that `read_volume` will most likely read a scan: it is there, 3D, on a usable grid, and whole.

    A file is read completely only where its length does not agree with its header.

    Raises:
        VolumeError: it cannot be read.
    """
    ending = require_file(path)
    try:
        if not ending:
            check_series(path, max_voxels=MAX_VOXELS)
        elif ending in NIFTI_ENDINGS:
            if not _may_hold(path, check_nifti(path, max_voxels=MAX_VOXELS)):
                read_volume(path)
        elif ending == ".dcm" or not _may_hold_itk(path):
            read_volume(path)
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


def _may_hold_itk(path: Path) -> bool:
    """Tell whether an uncompressed file is as long as its header claims; compressed ones must be read."""
    reader = open_itk(path, max_voxels=MAX_VOXELS)
    Geometry.from_image(reader)  # type: ignore[arg-type]
    return _ITEM_BYTES.get(reader.GetPixelID(), 8) * math.prod(reader.GetSize()) <= path.stat().st_size


_ITEM_BYTES = {
    **dict.fromkeys((sitk.sitkInt8, sitk.sitkUInt8), 1),
    **dict.fromkeys((sitk.sitkInt16, sitk.sitkUInt16), 2),
    **dict.fromkeys((sitk.sitkInt32, sitk.sitkUInt32, sitk.sitkFloat32), 4),
}


DESCRIPTION = "dataset.json"  # Describes the files beside it, as in the Medical Segmentation Decathlon or for nnU-Net


def dataset_description(folder: Path) -> dict[str, Any]:
    """Return the `dataset.json` of a folder, or the one beside the folder as in the sample data; {} without one."""
    for place in (folder, folder.resolve().parent):
        try:
            content = json.loads((place / DESCRIPTION).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(content, dict):
            return content
    return {}


def value_names(description: Mapping[str, Any]) -> dict[int, str]:
    """Return the names of label values, as the Decathlon (`"1": "liver"`) or nnU-Net (`"liver": 1`) write them."""
    found: dict[int, str] = {}
    labels = description.get("labels")
    for key, value in labels.items() if isinstance(labels, Mapping) else ():
        number, name = (key, value) if isinstance(value, str) else (value, key)
        if str(number).isdecimal() and int(number) > 0:
            found[int(number)] = str(name)
    return found
