"""NIfTI-1 as Slicer reads it (by ITK): which of two grids, which numbers; and what a lying header costs."""

import gzip
import tracemalloc

import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Header

from slicecast.errors import VolumeError
from slicecast.volume import Geometry, Volume, read_volume, write_volume

NUMBERS = np.arange(60, dtype=np.int16).reshape(5, 4, 3)
Q = np.array([[-2.0, 0, 0, 1], [0, -3, 0, 2], [0, 0, 4, 3], [0, 0, 0, 1]])
S = np.array([[-2.0, 0, 0, 11], [0, -3, 0, 12], [0, 0, 4, 13], [0, 0, 0, 1]])
SHEARED = np.array([[-2.0, 0.5, 0, 11], [0, -3, 0, 12], [0, 0, 4, 13], [0, 0, 0, 1]])


def read(folder, array=NUMBERS, *, order="<", q=1, s=1, sform=Q, **fields):
    """Write a file with nibabel's header and some other fields; read it."""
    header = Nifti1Header(endianness=order)
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape[::-1])
    header.set_qform(Q)
    header.set_sform(sform)
    for name, value in {"vox_offset": 352, "qform_code": q, "sform_code": s, **fields}.items():
        header[name] = value
    path = folder / "scan.nii"
    path.write_bytes(header.binaryblock + bytes(4) + array.astype(array.dtype.newbyteorder(order)).tobytes())
    return read_volume(path)


@pytest.mark.parametrize(
    ("q", "s", "sform", "origin_mm"),
    [
        (1, 1, S, (-11, -12, 13)),
        (2, 1, S, (-11, -12, 13)),
        (0, 4, S, (-11, -12, 13)),
        (1, 4, S, (-1, -2, 3)),  # the sform leads to an atlas
        (1, 0, S, (-1, -2, 3)),
        (1, 1, SHEARED, (-1, -2, 3)),
    ],
)
def test_sform_or_qform(tmp_path, q, s, sform, origin_mm):
    found = read(tmp_path, q=q, s=s, sform=sform)
    assert found.geometry.origin_mm == origin_mm
    assert found.geometry.spacing_mm == (2, 3, 4)
    assert found.geometry.direction == Geometry((1, 1, 1)).direction
    assert np.array_equal(found.array, NUMBERS)


def test_without_a_transform_voxel_0_is_the_origin(tmp_path):
    assert read(tmp_path, q=0, s=0).geometry == Geometry((3, 4, 5), (2, 3, 4))


@pytest.mark.parametrize(("unit", "factor"), [(0, 1), (1, 1000), (2, 1), (3, 0.001)])
def test_units(tmp_path, unit, factor):
    found = read(tmp_path, xyzt_units=unit).geometry
    assert found.spacing_mm == pytest.approx([2 * factor, 3 * factor, 4 * factor])
    assert found.origin_mm == pytest.approx([-factor, -2 * factor, 3 * factor])


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("order", "<>")
def test_types_in_either_byte_order(tmp_path, dtype, order):
    found = read(tmp_path, NUMBERS.astype(dtype), order=order).array
    assert np.array_equal(found, NUMBERS)
    assert found.dtype.isnative and found.flags.writeable


@pytest.mark.parametrize(
    ("slope", "intercept", "expected"),
    [(2, 5, NUMBERS * 2 + 5), (0, 5, NUMBERS + 5), (np.nan, np.nan, NUMBERS), (1, 0, NUMBERS), (0.5, 0, NUMBERS / 2)],
)
def test_scaled_numbers(tmp_path, slope, intercept, expected):
    found = read(tmp_path, scl_slope=slope, scl_inter=intercept).array
    assert np.array_equal(found, expected)
    assert found.dtype == (np.int16 if expected is NUMBERS else np.float32)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"magic": b"xxx"}, "magic string"),
        ({"datatype": 999}, "data code 999"),
        ({"datatype": 1536, "bitpix": 128}, "damaged"),
        ({"bitpix": 8}, "type 4 with 8 bits"),
        ({"dim": [0, 3, 4, 5, 1, 1, 1, 1]}, "dim is"),
        ({"dim": [3, 0, 4, 5, 1, 1, 1, 1]}, "dim is"),
        ({"pixdim": [1, np.nan, 3, 4, 0, 0, 0, 0]}, "unusable grid"),
        ({"s": 0, "quatern_b": 0.9, "quatern_c": 0.9, "quatern_d": 0.9}, "w2 should be positive"),
        ({"intent_code": 1007, "dim": [5, 3, 4, 5, 1, 3, 1, 1]}, "holds 3 numbers per voxel"),
    ],
)
def test_headers_that_are_refused(tmp_path, fields, message):
    with pytest.raises(VolumeError, match=message):
        read(tmp_path, **fields)


def test_small_faults_are_mended(tmp_path):
    assert read(tmp_path, pixdim=[0, 0, 3, 4, 0, 0, 0, 0]).geometry.spacing_mm == (1, 3, 4)


def test_a_claim_reserves_nothing(tmp_path):
    header = Nifti1Header()
    header.set_data_dtype(np.float64)
    header.set_data_shape((1024, 1024, 1024))
    header["vox_offset"] = 352
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(gzip.compress(header.binaryblock + bytes(1 << 22)))
    tracemalloc.start()
    with pytest.raises(VolumeError, match="of 8589934592 bytes of voxels are there"):
        read_volume(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()


def test_voxels_are_not_taken_from_a_file_of_nearly_the_same_name(tmp_path):
    """ITK reads `scan.nii` where `scan.nii.gz` is asked for."""
    for name, value in (("scan.nii", 1), ("scan.nii.gz", 2)):
        write_volume(tmp_path / name, Volume(np.full((2, 3, 4), value, np.int16), Geometry((4, 3, 2))))
    assert (read_volume(tmp_path / "scan.nii.gz").array == 2).all()
