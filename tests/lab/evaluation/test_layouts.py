"""Sets as the Decathlon and BraTS unpack them."""

import pytest

from slicecast.errors import ConfigError
from slicecast_lab.evaluation.cases import find_cases
from slicecast_lab.evaluation.layouts import find_seed_sets, scans_and_labels


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


def test_the_studys_sets_are_found_also_one_level_deeper(tmp_path):
    touch(tmp_path / "msd" / "Task03_Liver" / "imagesTr" / "x", tmp_path / "Task07_Pancreas" / "imagesTr" / "x")
    touch(tmp_path / "BraTS2020_TrainingData" / "MICCAI_BraTS2020_TrainingData" / "a" / "x")
    found = find_seed_sets(tmp_path)
    assert list(found) == ["BraTS2020", "Liver", "Pancreas"]
    assert found["BraTS2020"].name == "MICCAI_BraTS2020_TrainingData"
    with pytest.raises(ConfigError, match="Task09_Spleen"):
        find_seed_sets(tmp_path / "msd" / "Task03_Liver")
