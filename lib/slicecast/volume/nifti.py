"""Checks of NIfTI files that ITK leaves out: it reads a cut-off file without a word, and NaN as zero."""

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from slicecast.errors import VolumeError
from slicecast.volume.headers import MAX_VOXELS, require_size

_HEADER_BYTES = 348
_NIFTI2_HEADER_BYTES = 540
_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK_BYTES = 1 << 20
_FLOAT_CODES = {16: "f4", 64: "f8"}
_BITS = {2: 8, 4: 16, 8: 32, 16: 32, 32: 64, 64: 64, 128: 24, 256: 8, 512: 16, 768: 32, 1024: 64, 1280: 64}
"""Of a voxel, by the code of its type."""
_MAX_OFFSET = 1 << 26
"""Bytes of header extensions that are put up with."""


def check_nifti(path: Path, *, max_voxels: int = MAX_VOXELS) -> np.ndarray:
    """Check a .nii or .nii.gz file and find what ITK would hide.

    Returns:
        int64 (N,): places of NaN and infinite voxels, i fastest; ITK reads them as 0.

    Raises:
        VolumeError: the file is not NIfTI-1, wrongly named, cut off, or claims more than `max_voxels`.
    """
    with path.open("rb") as file:
        zipped = file.read(2) == _GZIP_MAGIC
    named_gz = path.name.lower().endswith(".gz")
    if named_gz and not zipped:
        raise VolumeError(f"{path} is named .gz but is not gzip-compressed. Rename it to .nii, or compress it.")
    if zipped and not named_gz:
        raise VolumeError(f"{path} is gzip-compressed but not named .gz. Rename it to .nii.gz.")
    try:
        with gzip.open(path, "rb") if zipped else path.open("rb") as stream:
            return _scan(stream, path, max_voxels)  # type: ignore[arg-type]
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise VolumeError(
            f"{path} is cut off or damaged: its gzip data cannot be unpacked. Copy or export it again."
        ) from error


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the voxels lie in the file, and of which type they are (None: not floating point)."""

    offset: int
    data_bytes: int
    float_dtype: np.dtype | None


def _scan(stream: BinaryIO, path: Path, max_voxels: int) -> np.ndarray:
    header = stream.read(_HEADER_BYTES)
    layout = _layout(header, path, max_voxels)
    stream.read(max(layout.offset - len(header), 0))
    found, broken = 0, []
    while found < layout.data_bytes and (chunk := stream.read(_CHUNK_BYTES)):  # what follows may be a gzip bomb
        if layout.float_dtype is not None:
            itemsize = layout.float_dtype.itemsize
            numbers = np.frombuffer(chunk[: len(chunk) // itemsize * itemsize], dtype=layout.float_dtype)
            broken.append(np.flatnonzero(~np.isfinite(numbers)) + found // itemsize)
        found += len(chunk)
    if found < layout.data_bytes:
        raise VolumeError(
            f"{path} is cut off: {found} of {layout.data_bytes} bytes of voxels are there. Copy or export it again."
        )
    places = np.concatenate(broken) if broken else np.zeros(0, dtype=np.int64)
    return places[: np.searchsorted(places, _voxel_count(layout))]


def _voxel_count(layout: _Layout) -> int:
    return layout.data_bytes // layout.float_dtype.itemsize if layout.float_dtype is not None else 0


def _layout(header: bytes, path: Path, max_voxels: int) -> _Layout:
    if len(header) < _HEADER_BYTES:
        raise VolumeError(
            f"{path} is cut off: it holds {len(header)} bytes, less than a NIfTI header. Copy or export it again."
        )
    for order in "<>":
        declared = struct.unpack_from(f"{order}i", header)[0]
        if declared == _NIFTI2_HEADER_BYTES:
            raise VolumeError(f"{path} is NIfTI-2, which is not read. Save it as NIfTI-1 (.nii.gz) or NRRD.")
        if declared == _HEADER_BYTES:
            return _declared_layout(header, order, path, max_voxels)
    raise VolumeError(
        f"{path} is not a NIfTI file, whatever its name says. Export it again, or give it its right ending."
    )


def _declared_layout(header: bytes, order: str, path: Path, max_voxels: int) -> _Layout:
    dimensions = struct.unpack_from(f"{order}8h", header, 40)
    code, bits = struct.unpack_from(f"{order}2h", header, 70)
    offset = struct.unpack_from(f"{order}f", header, 108)[0]
    lengths = [max(length, 1) for length in dimensions[1 : 1 + min(max(dimensions[0], 0), 7)]]
    require_size(lengths, path, max_voxels=max_voxels)
    if bits != _BITS.get(code, bits) or bits < 0:
        raise VolumeError(f"{path} says type {code} with {bits} bits a voxel, which does not fit. Export it again.")
    if not 0 <= offset <= _MAX_OFFSET:
        raise VolumeError(f"{path} says that its voxels begin at byte {offset:g}. Export it again.")
    kind = _FLOAT_CODES.get(code)
    return _Layout(int(offset), math.prod(lengths) * bits // 8, np.dtype(f"{order}{kind}") if kind else None)
