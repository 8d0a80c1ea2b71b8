"""Names of a saved label's voxels."""

import gzip

import numpy as np
import pytest
from builders import ball, grid, stored_as

from slicecast.errors import GeometryError, VolumeError
from slicecast.labelling.store.labels import SENT, check_label, true_label_info, with_names
from slicecast.volume import Geometry, Volume, write_mask, write_volume


def info(**numbers):
    return [{"name": name, "idx": idx} for name, idx in numbers.items()]


@pytest.mark.parametrize(
    ("sent", "values", "true"),
    [
        (info(spleen=1, liver=2), [0, 1, 2], info(spleen=1, liver=2)),
        (info(spleen=2, liver=3), [0, 1, 2], info(spleen=1, liver=2)),  # Slicer: background was first in the list
        (info(spleen=1, liver=3), [0, 1, 2], info(spleen=1, liver=2)),  # Slicer: scribbles lay between
        (info(spleen=2, liver=3), [0, 2, 3], info(spleen=2, liver=3)),  # a program that numbers as it likes
        (info(ventricles=8, cerebellum=9), [8], info(ventricles=8, cerebellum=9)),
        (info(spleen=2, liver=3), [0], info(spleen=2, liver=3)),
        (info(spleen=2), [7], info(spleen=2)),  # nothing explains it
        ([{"name": "spleen"}, {"idx": 1}, "liver", *info(kidney=1)], [1], info(kidney=1)),
        (None, [1], []),
    ],
)
def test_numbers_are_those_of_the_voxels(sent, values, true):
    assert true_label_info(sent, values) == true


def test_what_was_sent_is_kept_where_it_was_wrong(tmp_path):
    mask = np.zeros((3, 4, 5), np.uint8)
    mask[1, 1:3, 1] = 1, 2
    file = write_mask(tmp_path / "label.nii.gz", mask, Geometry((5, 4, 3), (1, 1, 1), (0, 0, 0)))
    told = {"label_info": info(spleen=2, liver=3), "client_id": "anna"}
    assert with_names(told, file) == {
        "label_info": info(spleen=1, liver=2),
        SENT: told["label_info"],
        "client_id": "anna",
    }
    right = {"label_info": info(spleen=1, liver=2)}
    assert with_names(right, file) == right
    assert with_names({}, file) == {}
    assert with_names({}, file, labels=("liver", "spleen", "kidney")) == {"label_info": info(liver=1, spleen=2)}
    answered = {"params": {"label_names": {"vein": 1, "artery": 2}}}
    assert with_names(answered, file, labels=("liver",)) == {**answered, "label_info": info(vein=1, artery=2)}


def test_a_label_that_is_no_volume_keeps_its_record(tmp_path):
    file = tmp_path / "points.json"
    file.write_text("{}")
    told = {"label_info": info(spleen=2)}
    assert with_names(told, file) == told


GRID = grid()
NAMES = {"liver": 1, "spleen": 2}


def written(tmp_path, array, geometry=GRID):
    return write_volume(tmp_path / "label.nii.gz", Volume(array, geometry))


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.float32, np.float64])
def test_whole_numbers_of_any_type_are_a_label(tmp_path, kind):
    truth = ball().astype(kind) * 2
    np.testing.assert_array_equal(check_label(written(tmp_path, truth), GRID, NAMES), ball() * 2)


def test_axes_in_another_order_are_put_right(tmp_path):
    turned = stored_as(Volume(ball(centre_ijk=(5, 9, 4)).astype(np.uint8), GRID), (2, 0, 1), (True, False, True))
    array = check_label(written(tmp_path, turned.array, turned.geometry), GRID, NAMES)
    np.testing.assert_array_equal(array, ball(centre_ijk=(5, 9, 4)))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (ball() * np.int16(300), "holds 300. Its values must be whole numbers from 0 to 255"),
        (ball() * np.int16(-1), "holds -1"),
        (ball() * np.float32(0.5), r"fractions \(0.5\)"),
        (np.where(ball(), np.nan, 0).astype(np.float32), "no number"),
        (ball() * np.uint8(3), "values 3 have no name"),
        (np.arange(ball().size, dtype=np.uint8).reshape(ball().shape), r"3, 4, 5, 6, 7, 8, \.\.\. have no name"),
    ],
)
def test_numbers_that_are_no_label(tmp_path, array, message):
    with pytest.raises(VolumeError, match=message):
        check_label(written(tmp_path, array), GRID, NAMES)


def test_another_grid(tmp_path):
    nine = np.ones((9, 9, 9), np.uint8)
    with pytest.raises(GeometryError, match=r"size .* against"):
        check_label(written(tmp_path, nine, Geometry((9, 9, 9))), GRID, NAMES)
    with pytest.raises(GeometryError, match="spacing"):
        check_label(written(tmp_path, ball().astype(np.uint8), grid(spacing_mm=(1, 1, 2))), GRID, NAMES)


def test_what_is_no_volume(tmp_path):
    file = tmp_path / "label.nii.gz"
    whole = written(tmp_path, ball().astype(np.uint8)).read_bytes()
    for content in (b"garbage", gzip.compress(b"garbage"), whole[: len(whole) // 2], b""):
        file.write_bytes(content)
        with pytest.raises(VolumeError, match=r"^The label (is|holds|ends)") as refused:
            check_label(file, GRID, NAMES)
        assert str(tmp_path) not in str(refused.value)
