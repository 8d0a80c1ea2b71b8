"""Names of a saved label's voxels."""

import numpy as np
import pytest

from slicecast.labelling.store.labels import SENT, true_label_info, with_true_label_info
from slicecast.volume import Geometry, write_mask


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
    assert with_true_label_info(told, file) == {
        "label_info": info(spleen=1, liver=2),
        SENT: told["label_info"],
        "client_id": "anna",
    }
    right = {"label_info": info(spleen=1, liver=2)}
    assert with_true_label_info(right, file) == right
    assert with_true_label_info({}, file) == {}


def test_a_label_that_is_no_volume_keeps_its_record(tmp_path):
    file = tmp_path / "points.json"
    file.write_text("{}")
    told = {"label_info": info(spleen=2)}
    assert with_true_label_info(told, file) == told
