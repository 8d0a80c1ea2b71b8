"""Reading cases, and the slice that is prompted."""

import numpy as np
import pytest
from builders import phantom

from slicecast.errors import ConfigError, GeometryError
from slicecast_lab.evaluation.cases import CaseFiles, find_cases, read_case, scans_and_labels
from slicecast_lab.evaluation.prompts import pick_slice


def test_a_folder_is_listed_by_name_and_by_split(folder):
    assert [files.id for files in find_cases(folder, (1,))] == ["anisotropic", "flipped", "sphere"]
    assert [files.id for files in find_cases(folder, (1,), split="test", limit=1)] == ["flipped"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: (d / "split.json").write_text('{"test": ["nobody"]}'), "'nobody'"),
        (lambda d: (d / "split.json").write_text('{"pool": []}'), "It has: pool"),
        (lambda d: (d / "images").mkdir(), "no split.json"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused(tmp_path, change, words):
    (tmp_path / "labels").mkdir()
    (tmp_path / "images").mkdir() if "no split" not in words else None
    change(tmp_path)
    with pytest.raises(ConfigError, match=words):
        find_cases(tmp_path, (1,), split="test")


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="images/ and labels/"):
        find_cases(tmp_path, (1,))


def test_several_values_are_one_object(case):
    assert np.array_equal(case.truth, phantom(case.files.id).truth)


def test_a_label_that_is_not_there_is_refused(cases):
    with pytest.raises(ConfigError, match="does not show label 7"):
        read_case(CaseFiles("x", cases[0].image, cases[0].label, (7,), "x"))


def test_grids_must_agree(cases):
    with pytest.raises(GeometryError, match="different grids"):
        read_case(CaseFiles("x", cases[0].image, cases[1].label, (1,), "x"))


def test_the_prompted_slice_is_the_largest_or_at_half_or_a_quarter_of_the_extent(case):
    areas = case.areas
    first, last = case.extent
    assert areas[first] and areas[last] and not areas[:first].any() and not areas[last + 1 :].any()
    assert areas[pick_slice(case, "largest")] == areas.max()
    assert pick_slice(case, "centre") == first + (last - first) // 2
    assert pick_slice(case, "quarter") == first + (last - first) // 4
    with pytest.raises(ConfigError, match="largest, centre, quarter"):
        pick_slice(case, "smallest")


def touch(*files):
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def test_the_decathlons_layout(tmp_path):
    folder = tmp_path / "Task09_Spleen"
    for part in ("imagesTr", "labelsTr"):
        touch(
            folder / part / "spleen_2.nii.gz", folder / part / "spleen_10.nii.gz", folder / part / "._spleen_2.nii.gz"
        )
    touch(folder / "imagesTs" / "spleen_7.nii.gz", folder / "dataset.json")
    found = find_cases(folder, ())
    assert [case.id for case in found] == ["spleen_10", "spleen_2"]
    assert found[0].label == folder / "labelsTr" / "spleen_10.nii.gz" and found[0].values == ()


def test_the_layout_of_brats_with_its_misnamed_label(tmp_path):
    for case, label in (
        ("BraTS20_Training_001", "BraTS20_Training_001_seg"),
        ("BraTS20_Training_355", "W39_1998_Segm"),
    ):
        contrasts = [tmp_path / case / f"{case}_{name}.nii" for name in ("flair", "t1", "t1ce", "t2")]
        touch(*contrasts, tmp_path / case / f"{label}.nii")
    touch(tmp_path / "name_mapping.csv")
    scans, truths = scans_and_labels(tmp_path)
    assert list(scans) == list(truths) == ["BraTS20_Training_001", "BraTS20_Training_355"]
    assert scans["BraTS20_Training_001"].name == "BraTS20_Training_001_flair.nii"
    assert truths["BraTS20_Training_355"].name == "W39_1998_Segm.nii"


def test_another_layout_is_refused(tmp_path):
    touch(tmp_path / "scans" / "a.nii.gz")
    with pytest.raises(ConfigError, match=r"imagesTr/ and.*labelsTr/"):
        scans_and_labels(tmp_path)
