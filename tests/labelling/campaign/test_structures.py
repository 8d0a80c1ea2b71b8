"""How alike two labels are."""

import numpy as np
import pytest
from builders import ball, grid, stored_as

from slicecast.errors import GeometryError
from slicecast.labelling.campaign.structures import compare_labels, slice_truths
from slicecast.volume import Volume, write_volume


def label(folder, name, array, geometry=None):
    return write_volume(folder / name, Volume(array.astype(np.uint8), geometry or grid()))


def test_a_label_with_itself(tmp_path):
    file = label(tmp_path, "a.nii.gz", ball())
    found = compare_labels(file, file)
    assert (found["dice"], found["nsd"], found["hd95_mm"]) == (1.0, 1.0, 0.0)


def test_distances_are_in_mm(tmp_path):
    geometry = grid(spacing_mm=(1, 1, 3))
    first = label(tmp_path, "a.nii.gz", ball(centre_ijk=(12, 10, 8)), geometry)
    other = label(tmp_path, "b.nii.gz", ball(centre_ijk=(12, 10, 9)), geometry)
    found = compare_labels(first, other, tolerance_mm=1.0)
    assert 2.0 < found["hd95_mm"] <= 3.0 and found["nsd"] < 1.0 and found["tolerance_mm"] == 1.0


def test_each_value_counts_alike(tmp_path):
    big, small = ball(radius=6.0), ball(centre_ijk=(3, 3, 3), radius=2.0)
    first = label(tmp_path, "a.nii.gz", np.where(small, 2, big))
    other = label(tmp_path, "b.nii.gz", big)
    assert compare_labels(first, other)["by_value"]["2"] == 0.0
    assert compare_labels(first, other)["dice"] == pytest.approx(
        (compare_labels(first, other)["by_value"]["1"]) / 2, abs=1e-3
    )


def test_two_empty_labels_agree(tmp_path):
    file = label(tmp_path, "a.nii.gz", np.zeros((16, 20, 24)))
    assert compare_labels(file, file)["dice"] == 1.0 and compare_labels(file, file)["hd95_mm"] is None


def test_another_storage_order_is_the_same_label(tmp_path):
    volume = Volume(ball().astype(np.uint8), grid())
    first = write_volume(tmp_path / "a.nii.gz", volume)
    other = write_volume(tmp_path / "b.nrrd", stored_as(volume, (1, 0, 2), (True, False, True)))
    assert compare_labels(first, other)["dice"] == 1.0


def test_another_grid_is_refused(tmp_path):
    first = label(tmp_path, "a.nii.gz", ball())
    other = label(tmp_path, "b.nii.gz", ball(), grid(spacing_mm=(1, 1, 2)))
    with pytest.raises(GeometryError, match="different grids"):
        compare_labels(first, other)


@pytest.mark.parametrize("flip", [False, True])
def test_features_meet_the_truth_of_the_slice_they_belong_to(tmp_path, flip):
    """Slices are counted as stored in the mask to which the features belong."""
    truth = ball(centre_ijk=(12, 10, 5))
    found = truth.copy()
    found[8] = False  # one slice missed
    mask = stored_as(Volume(found.astype(np.uint8), grid()), (0, 1, 2), (False, False, flip))
    first, second = write_volume(tmp_path / "a.nrrd", mask), label(tmp_path, "b.nrrd", truth)
    missed = 15 - 8 if flip else 8
    features = {str(n): [0.1 if n == missed else 0.9] for n in range(16) if n != 3}
    rows = slice_truths(first, second, features=features, axis="axial")
    assert len(rows) == 15 and [0.1, 0.0] in rows
    assert {so for said, so in rows if said == 0.9} == {1.0}  # also where both are empty


def test_the_truth_of_a_slice_is_its_iou(tmp_path):
    mine, other = np.zeros((16, 20, 24)), np.zeros((16, 20, 24))
    mine[4, 2:6, 2:6], other[4, 2:6, 2:10] = 1, 1
    files = label(tmp_path, "a.nii.gz", mine), label(tmp_path, "b.nii.gz", other)
    assert slice_truths(*files, features={"4": [0.5]}, axis="axial") == [[0.5, 0.5]]
