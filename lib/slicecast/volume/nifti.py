"""NIfTI-1 files, by nibabel, after a check that the file can hold what its header claims.

The grid is the one that ITK takes, and with it Slicer: the sform where it is a scanner's or the only one, else the
qform; spacing always from `pixdim`.
"""

import gzip
import logging
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.spatialimages import HeaderDataError

from slicecast.errors import VolumeError
from slicecast.volume.grid import Geometry
from slicecast.volume.headers import MAX_VOXELS, require_3d, require_scalar, require_size

_HEADER_BYTES, _NIFTI2_HEADER_BYTES = 348, 540
_MAX_OFFSET = 1 << 26  # Bytes of header extensions that are put up with
_CHUNK_BYTES = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b"
_REFUSE_LEVEL = 40  # nibabel mends what it finds less wrong than this, such as a pixdim of 0
_SILENT = logging.Logger("nibabel", logging.CRITICAL)
"""nibabel logs what it then raises, and every header that SPM would not like."""
_SCANNER = 1  # Code of a transform to the scanner's coordinates
_UNIT_MASK, _MM = 7, {1: 1000.0, 3: 0.001}
"""Bits of `xyzt_units` that name the unit of length, and the units that are not mm."""
_VECTOR_INTENTS = (1004, 1005, 1006, 1007)
"""Matrices, displacements and vectors; the fifth dimension counts their numbers."""
_STRAIGHT = 1e-4
"""Largest entry of |RᵀR - 1| of an sform that is used, as in ITK; also how near a qform must be to be the same."""
_TO_LPS = np.array([[-1.0], [-1.0], [1.0]])  # NIfTI's world is RAS: two of its axes point the other way


def read_nifti(path: Path, *, max_voxels: int = MAX_VOXELS) -> tuple[np.ndarray, Geometry]:
    """Read a .nii or .nii.gz file.

    Returns:
        voxels [k, j, i] in the machine's byte order, scaled if the header says so (then float32, or float64 if
        stored as such); and their grid.

    Raises:
        VolumeError: the file is not NIfTI-1, wrongly named, cut off, no single volume of one number per voxel, or
            claims more than `max_voxels`.
        GeometryError: the header describes no usable grid.
    """
    with _opened(path) as stream:
        header, dtype, grid, offset = _described(stream, path, max_voxels)
        stream.seek(offset)
        return _scaled(_stored_voxels(stream, dtype, grid.size_ijk, path), header), grid


def check_nifti(path: Path, *, max_voxels: int = MAX_VOXELS) -> int:
    """Check a file's header as `read_nifti` does; return the bytes that the file must hold, unpacked.

    Raises:
        VolumeError: see `read_nifti`.
        GeometryError: see `read_nifti`.
    """
    with _opened(path) as stream:
        _, dtype, grid, offset = _described(stream, path, max_voxels)
    return offset + math.prod(grid.size_ijk) * dtype.itemsize


def nifti_grid(path: Path) -> Geometry:
    """Return a file's grid by its header; raises as `check_nifti` does."""
    with _opened(path) as stream:
        return _described(stream, path, MAX_VOXELS)[2]


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file, unpacked."""
    with path.open("rb") as file:
        zipped = file.read(2) == _GZIP_MAGIC
    named_gz = path.name.lower().endswith(".gz")
    if named_gz and not zipped:
        raise VolumeError(f"{path} is named .gz but is not gzip-compressed. Rename it to .nii, or compress it.")
    if zipped and not named_gz:
        raise VolumeError(f"{path} is gzip-compressed but not named .gz. Rename it to .nii.gz.")
    try:
        with gzip.open(path, "rb") if zipped else path.open("rb") as stream:
            yield stream  # type: ignore[misc]
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise VolumeError(
            f"{path} is cut off or damaged: its gzip data cannot be unpacked. Copy or export it again."
        ) from error


def _described(stream: BinaryIO, path: Path, max_voxels: int) -> tuple[Nifti1Header, np.dtype, Geometry, int]:
    """Read the header; return it, the type of the voxels, their grid, and where they begin."""
    header = _header(stream.read(_HEADER_BYTES), path)
    size = _size(header, path, max_voxels)
    offset = _offset(header, path)
    try:
        return header, _dtype(header, path), _grid(header, size, path), offset
    except HeaderDataError as error:
        raise _damaged(path, str(error)) from error


def _header(block: bytes, path: Path) -> Nifti1Header:
    if len(block) < _HEADER_BYTES:
        raise VolumeError(
            f"{path} is cut off: it holds {len(block)} bytes, less than a NIfTI header. Copy or export it again."
        )
    for order in "<>":
        declared = struct.unpack_from(f"{order}i", block)[0]
        if declared == _NIFTI2_HEADER_BYTES:
            raise VolumeError(f"{path} is NIfTI-2, which is not read. Save it as NIfTI-1 (.nii.gz) or NRRD.")
        if declared == _HEADER_BYTES:
            return Nifti1Header(block, endianness=order, check=False)
    raise VolumeError(
        f"{path} is not a NIfTI file, whatever its name says. Export it again, or give it its right ending."
    )


def _size(header: Nifti1Header, path: Path, max_voxels: int) -> tuple[int, int, int]:
    count, *lengths = header["dim"].tolist()
    lengths = [max(length, 1) for length in lengths[: max(count, 0)]]  # further ones may hold anything
    require_size(lengths, path, max_voxels=max_voxels)
    if not 1 <= count <= 7 or header["dim"][1] < 1:
        raise _damaged(path, f"dim is {header['dim'].tolist()}")
    if int(header["intent_code"]) in _VECTOR_INTENTS and len(lengths) > 4:
        require_scalar(lengths[4], header.get_intent()[0], path)
    require_3d(lengths, path)
    return lengths[0], lengths[1], lengths[2]


def _offset(header: Nifti1Header, path: Path) -> int:
    """Return where the voxels begin, and hide it from nibabel, which refuses files that have no bytes in between."""
    offset = float(header["vox_offset"])
    if not 0 <= offset <= _MAX_OFFSET:
        raise VolumeError(f"{path} says that its voxels begin at byte {offset:g}. Export it again.")
    header["vox_offset"] = 0
    return max(int(offset), _HEADER_BYTES)


def _dtype(header: Nifti1Header, path: Path) -> np.dtype:
    code, bits = int(header["datatype"]), int(header["bitpix"])
    header.check_fix(logger=_SILENT, error_level=_REFUSE_LEVEL)  # corrects bitpix, among others
    dtype = header.get_data_dtype()
    if bits != dtype.itemsize * 8:
        raise VolumeError(f"{path} says type {code} with {bits} bits a voxel, which does not fit. Export it again.")
    require_scalar(2 if dtype.kind == "c" else len(dtype.names or "1"), header.get_value_label("datatype"), path)
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise _damaged(path, f"data code {code} is not supported")
    return dtype


def _grid(header: Nifti1Header, size: tuple[int, int, int], path: Path) -> Geometry:
    unit_mm = _MM.get(int(header["xyzt_units"]) & _UNIT_MASK, 1.0)
    spacing: Any = header["pixdim"][1:4].astype(float) * unit_mm
    transform = _transform(header, path)
    if transform is None:
        return Geometry(size, spacing)
    lps = transform[:3] * _TO_LPS + 0.0  # no -0.0
    return Geometry(size, spacing, lps[:, 3] * unit_mm, lps[:, :3] / np.linalg.norm(lps[:, :3], axis=0))


def _transform(header: Nifti1Header, path: Path) -> np.ndarray | None:
    """Choose the transform to RAS, float64 (4, 4); None where the header has none."""
    q, s = int(header["qform_code"]), int(header["sform_code"])
    sform = header.get_sform()
    straight = s and _is_straight(sform[:3, :3])
    if straight and (not q or s == _SCANNER):
        return sform
    if q:
        try:
            qform = header.get_qform()
        except ValueError as error:
            raise _damaged(path, str(error)) from error
        same = straight and np.allclose(sform, qform, rtol=0, atol=_STRAIGHT)
        return sform if same else qform  # the sform is the more exact of the two
    if s:
        raise VolumeError(
            f"{path} lies on a sheared or unusable grid (its directions are not at right angles). "
            "Resample it onto a straight grid."
        )
    return None


def _is_straight(matrix: np.ndarray) -> bool:
    with np.errstate(divide="ignore", invalid="ignore"):
        axes = matrix / np.linalg.norm(matrix, axis=0)
    return bool(np.abs(axes @ axes.T - np.eye(3)).max() <= _STRAIGHT)


def _stored_voxels(stream: BinaryIO, dtype: np.dtype, size: tuple[int, int, int], path: Path) -> np.ndarray:
    """Read what the header claims, and at most one chunk of what follows, which may be a gzip bomb.

    Memory grows with what is found, so a claim alone reserves nothing. That chunk mostly reaches the end of the file,
    where gzip compares its checksum.
    """
    content, wanted = bytearray(), math.prod(size) * dtype.itemsize
    while len(content) < wanted and (chunk := stream.read(_CHUNK_BYTES)):
        content += chunk
    if len(content) < wanted:
        raise VolumeError(
            f"{path} is cut off: {len(content)} of {wanted} bytes of voxels are there. Copy or export it again."
        )
    array = np.frombuffer(content, dtype, math.prod(size)).reshape(size[::-1])
    return array.astype(dtype.newbyteorder("="), copy=False)


def _scaled(array: np.ndarray, header: Nifti1Header) -> np.ndarray:
    """Apply slope and intercept slice by slice; a slope that is 0 or not finite counts as 1, as in ITK."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    slope = slope if slope and math.isfinite(slope) else 1.0
    intercept = intercept if math.isfinite(intercept) else 0.0
    if (slope, intercept) == (1.0, 0.0):
        return array
    scaled = array.astype(np.float64 if array.dtype == np.float64 else np.float32, copy=False)
    with np.errstate(over="ignore", invalid="ignore"):  # what does not fit becomes infinite and is reported as such
        for plane in scaled:
            plane[...] = plane.astype(np.float64) * slope + intercept
    return scaled


def _damaged(path: Path, why: str) -> VolumeError:
    return VolumeError(f"{path} is cut off or damaged and cannot be read. Copy or export it again. ({why[:120]})")
