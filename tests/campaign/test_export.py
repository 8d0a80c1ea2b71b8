"""Labels as a training set and as a table."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from builders import ball, grid, scan
from campaigns import played

from slicecast.campaign.export import LabelledCase, export_csv, export_dataset, number_names, read_modalities
from slicecast.errors import ConfigError, InputError
from slicecast.files import file_sha256
from slicecast.volume import Volume, read_volume, write_volume


@pytest.fixture
def case(tmp_path):
    def make(name, array, names, geometry=None):
        image = write_volume(tmp_path / f"{name}.nii.gz", scan(ball()))
        label = write_volume(tmp_path / f"{name}-label.nrrd", Volume(array.astype(np.uint8), geometry or grid()))
        return LabelledCase(name, image, label, names)

    return make


@pytest.fixture
def two(case):
    """The same structures, numbered differently."""
    big, small = ball(radius=6), ball(centre_ijk=(3, 3, 3), radius=2)
    return [
        case("a", np.where(small, 2, big), {1: "liver", 2: "spleen"}),
        case("b", np.where(small, 1, big * 2), {1: "spleen", 2: "liver"}),
        case("c", big, {1: "liver"}),
    ]


def test_names_have_one_number(two):
    assert number_names(two) == {"liver": 1, "spleen": 2} or number_names(two) == {"spleen": 2, "liver": 1}


def test_nnunet(two, tmp_path):
    content = export_dataset(two, tmp_path / "out", layout="nnunet", name="Two", modality="CT").content
    assert content == json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "liver": 1, "spleen": 2} and content["channel_names"] == {"0": "CT"}
    files = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.nii.gz"))
    assert files == [
        *(f"imagesTr/{name}_0000.nii.gz" for name in "abc"),
        *(f"labelsTr/{name}.nii.gz" for name in "abc"),
    ]
    first, other = (read_volume(tmp_path / "out" / "labelsTr" / f"{name}.nii.gz") for name in "ab")
    np.testing.assert_array_equal(first.array, other.array)
    assert not first.geometry.differences(read_volume(tmp_path / "out" / "imagesTr" / "a_0000.nii.gz").geometry)


def test_decathlon(two, tmp_path):
    content = export_dataset(two, tmp_path / "out", layout="msd", name="Two", modality="MRI").content
    assert content["labels"] == {"0": "background", "1": "liver", "2": "spleen"} and content["numTraining"] == 3
    for entry in content["training"]:
        assert all((tmp_path / "out" / entry[key]).is_file() for key in ("image", "label"))


def test_a_scan_that_does_not_say_its_modality(two, tmp_path):
    with pytest.raises(ConfigError, match="--modality"):
        export_dataset(two, tmp_path / "out", layout="msd", name="x")
    assert not (tmp_path / "out").exists()
    assert export_dataset(two, tmp_path / "out", layout="msd", name="x", modality="CT").content["numTraining"] == 3


def test_the_modality_that_a_list_beside_the_studies_says(two, tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps({"modality": {"a": "CT", "b": "CT", "c": "MR"}}))
    (tmp_path / "studies").mkdir()
    said = read_modalities(tmp_path / "studies")
    cases = [replace(case, modality=said[case.name]) for case in two]
    content = export_dataset(cases[:2], tmp_path / "out", layout="nnunet", name="x").content
    assert content["channel_names"] == {"0": "CT"}
    with pytest.raises(ConfigError, match="differ: CT and MRI"):
        export_dataset(cases, tmp_path / "both", layout="nnunet", name="x")
    (tmp_path / "dataset.json").write_text('{"modality": 3}')
    assert read_modalities(tmp_path / "studies") == {}


def test_a_bad_case_is_left_out(two, case, tmp_path):
    half = case("half", ball() * 0.5, {1: "liver"})
    write_volume(half.label, Volume((ball() * 0.5).astype(np.float32), grid()))
    gone = replace(two[0], name="gone", image=tmp_path / "gone.nii.gz")
    two[1].label.write_text("garbage")
    done = export_dataset([half, gone, *two], tmp_path / "out", layout="msd", name="x", modality="CT")
    assert done.skipped.keys() == {"half", "gone", "b"} and "value 0.5" in done.skipped["half"]
    assert done.content["numTraining"] == 2 == len(done.content["training"])
    assert sorted(path.name for path in (tmp_path / "out" / "imagesTr").iterdir()) == ["a.nii.gz", "c.nii.gz"]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_label_that_was_changed_after_it_was_submitted_is_left_out(two, tmp_path):
    known = [replace(case, sha256=file_sha256(case.label)) for case in two]
    assert export_dataset(known, tmp_path / "all", layout="nnunet", name="Two", modality="CT").skipped == {}
    known[0].label.write_bytes(known[2].label.read_bytes())
    skipped = export_dataset(known, tmp_path / "rest", layout="nnunet", name="Two", modality="CT").skipped
    assert list(skipped) == ["a"] and "changed in the folder" in skipped["a"]


def test_what_cannot_be_exported(case, tmp_path):
    with pytest.raises(InputError, match="nothing to export"):
        export_dataset([], tmp_path / "out", layout="msd", name="x")
    with pytest.raises(InputError, match="value 3, which has no name"):
        export_dataset([case("a", ball() * 3, {1: "x"})], tmp_path / "o1", layout="msd", name="x", modality="CT")
    other = case("b", ball(), {1: "x"}, grid(spacing_mm=(1, 1, 2)))
    with pytest.raises(InputError, match="another grid"):
        export_dataset([other], tmp_path / "o2", layout="msd", name="x", modality="CT")
    with pytest.raises(ConfigError, match="not empty"):
        export_dataset([case("c", ball(), {1: "x"})], tmp_path, layout="msd", name="x", modality="CT")


def test_a_table_that_no_spreadsheet_runs(tmp_path):
    assert export_csv(played(), tmp_path / "cases.csv") == 6
    lines = list(csv.DictReader((tmp_path / "cases.csv").read_text().splitlines()))
    assert lines[1]["note"] == "'=hole()" and lines[0]["second_dice"] == "0.93"
