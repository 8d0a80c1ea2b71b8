"""Reading and writing files; what cannot be read is refused in a sentence."""

import gzip
import logging

import numpy as np
import pytest
import SimpleITK as sitk
from builders import ball, grid, phantom, scan
from dicoms import write_slices

from slicecast.errors import GeometryError, VolumeError
from slicecast.volume import Geometry, Volume, canonicalise, read_volume, reading, write_mask, write_volume
from slicecast.volume.reading import check_scan, is_whole

ENDINGS = (".nii", ".nii.gz", ".nrrd", ".mha")


@pytest.mark.parametrize("ending", ENDINGS)
def test_round_trip(tmp_path, any_phantom, ending):
    path = write_volume(tmp_path / f"scan{ending}", any_phantom.volume)
    found = read_volume(path)
    assert np.array_equal(found.array, any_phantom.volume.array)
    assert found.array.dtype == np.int16
    assert found.geometry.differences(any_phantom.volume.geometry) == []
    assert found.meta["source"] == str(path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", ENDINGS)
def test_masks_are_uint8_on_the_same_grid(tmp_path, any_phantom, ending):
    path = write_mask(tmp_path / f"mask{ending}", any_phantom.truth, any_phantom.volume.geometry)
    found = read_volume(path)
    assert found.array.dtype == np.uint8
    assert np.array_equal(found.array, any_phantom.truth)
    assert found.geometry.differences(any_phantom.volume.geometry) == []


def test_masks_are_compressed_unless_told_otherwise(tmp_path):
    array, geometry = np.zeros((40, 50, 60), np.uint8), grid((60, 50, 40))
    small = write_mask(tmp_path / "a.nrrd", array, geometry)
    large = write_mask(tmp_path / "b.nrrd", array, geometry, compress=False)
    assert small.stat().st_size < 2000 < 100_000 < large.stat().st_size


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "mask.nii.gz"
    write_mask(path, np.zeros((4, 4, 4), bool), Geometry((4, 4, 4)))
    write_mask(path, np.ones((4, 4, 4), bool), Geometry((4, 4, 4)))
    assert read_volume(path).array.all()
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("mask.png", np.zeros((4, 4, 4), bool), "ends in none of .nii, .nii.gz, .nrrd, .mha"),
        ("nowhere/mask.nii", np.zeros((4, 4, 4), bool), "does not exist. Create it"),
        ("mask.nii", np.full((4, 4, 4), 256), "beyond 0 to 255"),
        ("mask.nii", np.full((4, 4, 4), -1), "beyond 0 to 255"),
        ("mask.nii", np.full((4, 4, 4), 0.5), "fractions, such as probabilities"),
        ("mask.nii", np.full((4, 4, 4), np.nan), "fractions, such as probabilities"),
        ("mask.nii", np.zeros((4, 4, 4), complex), "Give bool or uint8"),
    ],
)
def test_refuses_to_write(tmp_path, name, array, message):
    with pytest.raises(VolumeError, match=message):
        write_mask(tmp_path / name, array, Geometry((4, 4, 4)))
    assert list(tmp_path.iterdir()) == []


def test_refuses_a_mask_of_another_shape(tmp_path):
    with pytest.raises((GeometryError, VolumeError), match=r"\(4, 4, 5\)"):
        write_mask(tmp_path / "mask.nii", np.zeros((4, 4, 5), bool), Geometry((4, 4, 4)))


@pytest.mark.parametrize(
    ("stored", "kept"),
    [
        (np.uint8, np.uint8),
        (np.int16, np.int16),
        (np.uint16, np.uint16),
        (np.int32, np.int16),
        (np.float32, np.float32),
        (np.float64, np.float32),
    ],
)
def test_types_are_kept_or_narrowed(tmp_path, stored, kept):
    numbers = np.arange(60).reshape(5, 4, 3).astype(stored)
    sitk.WriteImage(sitk.GetImageFromArray(numbers), str(tmp_path / "scan.nrrd"))
    found = read_volume(tmp_path / "scan.nrrd").array
    assert found.dtype == kept
    assert np.array_equal(found, numbers)


def test_large_whole_numbers_stay_exact(tmp_path):
    numbers = np.array([0, 70_000, -5, 1_000_000], np.int32).reshape(1, 2, 2)
    sitk.WriteImage(sitk.GetImageFromArray(numbers), str(tmp_path / "scan.nrrd"))
    assert read_volume(tmp_path / "scan.nrrd").array.ravel().tolist() == [0, 70_000, -5, 1_000_000]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_and_infinity_become_the_smallest_number(tmp_path, ending, dtype, caplog):
    numbers = np.arange(24, dtype=dtype).reshape(4, 3, 2) - 5
    numbers[0, 0, 1], numbers[3, 2, 1], numbers[2, 0, 0] = np.nan, np.inf, -np.inf
    path = tmp_path / f"scan{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(numbers), str(path))
    with caplog.at_level(logging.WARNING):
        found = read_volume(path)
    assert found.array[0, 0, 1] == found.array[3, 2, 1] == found.array[2, 0, 0] == -5
    assert found.array[1, 1, 1] == numbers[1, 1, 1]
    assert found.warnings == ("3 voxels were NaN or infinite and were set to the smallest value, -5.",)
    assert "3 voxels" in caplog.text


@pytest.mark.parametrize("ending", ENDINGS)
def test_nothing_finite_is_refused(tmp_path, ending):
    path = tmp_path / f"scan{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(np.full((4, 4, 4), np.nan, np.float32)), str(path))
    with pytest.raises(VolumeError, match="no finite number"):
        read_volume(path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_one_slice_is_a_volume(tmp_path, ending):
    volume = Volume(np.arange(20, dtype=np.int16).reshape(1, 5, 4), Geometry((4, 5, 1), (1, 1, 6)))
    path = write_volume(tmp_path / f"slice{ending}", volume)
    assert read_volume(path).geometry.size_ijk == (4, 5, 1)


@pytest.mark.parametrize("ending", ENDINGS)
def test_2d_is_refused(tmp_path, ending):
    path = tmp_path / f"flat{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((5, 4), np.int16)), str(path))
    with pytest.raises(VolumeError, match="2D image of 4 x 5 pixels"):
        read_volume(path)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("times", [1, 3])
def test_4d_is_refused_unless_it_is_one_volume(tmp_path, ending, times):
    path = tmp_path / f"series{ending}"
    volume = sitk.GetImageFromArray(np.arange(60, dtype=np.int16).reshape(5, 4, 3))
    sitk.WriteImage(sitk.JoinSeries([volume] * times), str(path))
    if times == 1:
        assert np.array_equal(read_volume(path).array, sitk.GetArrayFromImage(volume))
    else:
        with pytest.raises(VolumeError, match=r"holds 3 volumes \(3 x 4 x 5 x 3\). Split it"):
            read_volume(path)


@pytest.mark.parametrize("ending", [".nii", ".nrrd", ".mha"])
def test_colour_is_refused(tmp_path, ending):
    path = tmp_path / f"colour{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((5, 4, 3, 3), np.uint8), isVector=True), str(path))
    with pytest.raises(VolumeError, match="holds 3 numbers per voxel"):
        read_volume(path)


def test_complex_is_refused(tmp_path):
    path = tmp_path / "complex.nii"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((5, 4, 3), np.complex64)), str(path))
    with pytest.raises(VolumeError, match="per voxel"):
        read_volume(path)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("share", [0.0, 0.002, 0.5, 0.95])
def test_a_cut_off_file_is_refused(tmp_path, ending, share, rng):
    path = tmp_path / f"scan{ending}"
    numbers = rng.integers(0, 1000, (20, 30, 40)).astype(np.int16)
    write_volume(path, Volume(numbers, Geometry((40, 30, 20))))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(VolumeError, match=r"empty|cut off|damaged|not a NIfTI|not in the format"):
        read_volume(path)


def test_a_damaged_gzip_is_refused(tmp_path, rng):
    path = tmp_path / "scan.nii.gz"
    write_volume(path, Volume(rng.integers(0, 1000, (20, 30, 40)).astype(np.int16), Geometry((40, 30, 20))))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(VolumeError, match="cut off or damaged"):
        read_volume(path)


def test_wrongly_named_files_are_refused(tmp_path):
    plain = write_volume(tmp_path / "scan.nii", phantom().volume)
    (tmp_path / "plain.nii.gz").write_bytes(plain.read_bytes())
    with pytest.raises(VolumeError, match=r"named .gz but is not gzip"):
        read_volume(tmp_path / "plain.nii.gz")
    (tmp_path / "zipped.nii").write_bytes(gzip.compress(plain.read_bytes()))
    with pytest.raises(VolumeError, match=r"not named .gz. Rename"):
        read_volume(tmp_path / "zipped.nii")
    (tmp_path / "text.nii").write_text("no scan at all " * 100)
    with pytest.raises(VolumeError, match="is not a NIfTI file"):
        read_volume(tmp_path / "text.nii")
    (tmp_path / "text.nrrd").write_text("no scan at all " * 100)
    with pytest.raises(VolumeError, match="not in the format its name says"):
        read_volume(tmp_path / "text.nrrd")
    (tmp_path / "scan.tiff").write_text("x")
    with pytest.raises(VolumeError, match=r"ends in none of .nii, .nii.gz"):
        read_volume(tmp_path / "scan.tiff")
    with pytest.raises(VolumeError, match="There is no file"):
        read_volume(tmp_path / "missing.nii")


def test_nifti_2_is_refused(tmp_path):
    (tmp_path / "two.nii").write_bytes((540).to_bytes(4, "little") + bytes(600))
    with pytest.raises(VolumeError, match="NIfTI-2"):
        read_volume(tmp_path / "two.nii")


def test_a_sheared_grid_is_refused(tmp_path):
    path = write_volume(tmp_path / "scan.nii", phantom().volume)
    content = bytearray(path.read_bytes())
    content[252:256] = (0).to_bytes(2, "little") + (1).to_bytes(2, "little")  # sform only
    content[280:296] = np.array([1, 0.4, 0, 0], "<f4").tobytes()
    path.write_bytes(bytes(content))
    with pytest.raises(VolumeError, match="sheared"):
        read_volume(path)


def test_reading_is_quiet(tmp_path, capfd):
    path = tmp_path / "text.nrrd"
    path.write_text("NRRD0004\nnonsense\n\n")
    with pytest.raises(VolumeError):
        read_volume(path)
    assert capfd.readouterr() == ("", "")


AWKWARD_RESULTS = {
    "derived_hippocampus/empty.nii.gz": "is empty",
    "derived_hippocampus/img_4d_2vol.nii.gz": "holds 2 volumes",
    "derived_hippocampus/img_not_gz_but_named.nii.gz": "not gzip-compressed",
    "derived_hippocampus/img_truncated.nii.gz": "cut off or damaged",
    "nibabel/example4d.nii.gz": "holds 2 volumes",
    "nibabel/functional.nii": "holds 20 volumes",
    "nibabel/example_nifti2.nii.gz": "NIfTI-2",
    "pydicom/badVR.dcm": "not a readable DICOM image",
    "pydicom/MR_truncated.dcm": "cut off or damaged",
    "pydicom/no_meta.dcm": "not a readable DICOM image",
    "pydicom/rtstruct.dcm": "not a readable DICOM image",
    "pydicom/SC_rgb_16bit_2frame.dcm": "holds 3 numbers per voxel",
    "pydicom/emri_small_jpeg_2k_lossless_too_short.dcm": "holds no image",
}


@pytest.mark.data
@pytest.mark.filterwarnings("ignore")  # pydicom warns of what it then raises
def test_every_awkward_file_is_read_or_refused(real_data):
    files = sorted(path for path in (real_data / "awkward").rglob("*") if path.is_file())
    assert len(files) >= 43
    for path in files:
        name = path.relative_to(real_data / "awkward").as_posix()
        if name in AWKWARD_RESULTS:
            with pytest.raises(VolumeError, match=AWKWARD_RESULTS[name]):
                read_volume(path)
        else:
            assert canonicalise(read_volume(path))[0].geometry.axcodes == "LPS"


@pytest.mark.data
@pytest.mark.parametrize("code", ["LPI", "SRA", "PIR"])
def test_rewritten_scans_are_the_original(real_data, code):
    folder = real_data / "awkward" / "derived_hippocampus"
    expected, _ = canonicalise(read_volume(real_data / "hippocampus" / "images" / "hippocampus_001.nii.gz"))
    stored = read_volume(folder / f"img_{code}.nii.gz")
    assert stored.geometry.axcodes == code
    found, _ = canonicalise(stored)
    assert np.array_equal(found.array, expected.array)
    assert found.geometry.differences(expected.geometry) == []


@pytest.fixture
def no_voxels(monkeypatch):
    """Reading voxels fails."""

    def refuse(path, **options):
        raise AssertionError(f"{path} was read completely")

    monkeypatch.setattr(reading, "read_volume", refuse)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_a_whole_file_is_not_read(tmp_path, no_voxels, ending):
    check_scan(write_volume(tmp_path / f"a{ending}", scan(ball())))


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_a_whole_uncompressed_file_is_not_read(tmp_path, no_voxels, ending):
    check_scan(write_volume(tmp_path / f"a{ending}", scan(ball()), compress=False))


def test_a_whole_series_is_not_read(tmp_path, no_voxels):
    check_scan(write_slices(tmp_path / "s", np.zeros((4, 6, 8)), [(0, 0, k) for k in range(4)]))


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
@pytest.mark.parametrize("compress", [True, False])
def test_a_file_that_is_cut_off(tmp_path, ending, compress):
    file = write_volume(tmp_path / f"a{ending}", scan(ball()), compress=compress)
    check_scan(file)
    file.write_bytes(file.read_bytes()[:-900])
    with pytest.raises(VolumeError, match="cut off"):
        check_scan(file)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_other_dimensions(tmp_path, ending):
    for shape, message in (((5, 4, 3, 2), "holds 5 volumes"), ((4, 3), "2D image")):
        sitk.WriteImage(sitk.GetImageFromArray(np.zeros(shape, np.int16), isVector=False), str(tmp_path / f"a{ending}"))
        with pytest.raises(VolumeError, match=message):
            check_scan(tmp_path / f"a{ending}")


def test_what_is_no_scan_at_all(tmp_path):
    (tmp_path / "empty.nii.gz").touch()
    (tmp_path / "text.nii.gz").write_bytes(gzip.compress(b"garbage" * 99))
    two = bytearray(write_volume(tmp_path / "two.nii", scan(ball())).read_bytes())
    two[:4] = (540).to_bytes(4, "little")
    (tmp_path / "two.nii").write_bytes(two)
    (tmp_path / "folder").mkdir()
    names = {"empty.nii.gz": "0 bytes", "text.nii.gz": "not a NIfTI", "two.nii": "NIfTI-2", "none.nii": "no file"}
    for name, message in {**names, "folder": "no DICOM"}.items():
        with pytest.raises(VolumeError, match=message):
            check_scan(tmp_path / name)


def test_a_file_in_two_gzip_parts_is_read(tmp_path):
    file = write_volume(tmp_path / "a.nii.gz", scan(ball()))
    content = gzip.decompress(file.read_bytes())
    file.write_bytes(gzip.compress(content[:5000]) + gzip.compress(content[5000:]))
    check_scan(file)


NOISE = np.random.default_rng(0).integers(0, 200, (5, 6, 7)).astype(np.int16)


@pytest.mark.parametrize("array", [NOISE, np.zeros_like(NOISE)])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("compress", [True, False])
def test_every_cut_is_noticed(tmp_path, array, ending, compress):
    file = write_volume(tmp_path / f"scan{ending}", Volume(array, Geometry((7, 6, 5))), compress=compress)
    content = file.read_bytes()
    assert is_whole(file, ending, array.nbytes)
    for length in range(len(content)):
        file.write_bytes(content[:length])
        assert not is_whole(file, ending, array.nbytes)


def test_what_was_cut_is_not_written(tmp_path, monkeypatch):
    target = tmp_path / "scan.nii.gz"
    target.write_bytes(b"as it was")
    monkeypatch.setattr("slicecast.volume.reading.sitk.WriteImage", lambda image, part, **how: None)
    with pytest.raises(OSError, match="no room"):
        write_volume(target, Volume(NOISE, Geometry((7, 6, 5))))
    assert target.read_bytes() == b"as it was" and list(tmp_path.iterdir()) == [target]
