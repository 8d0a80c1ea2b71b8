"""Labels that were made elsewhere: found, matched with images, checked."""

import json

import numpy as np
import pytest
from builders import ball, grid, scan
from dicoms import write_slices

from slicecast.dicom.catalogue import Catalogue
from slicecast.dicom.seg import SegNames, write_seg
from slicecast.errors import InputError, NotFound
from slicecast.labelling.importing import Images, ImportNames, find_labels, import_labels
from slicecast.volume import read_volume, write_mask, write_volume
from slicecast.volume.reading import value_names

NAMES = ImportNames({1: "liver", 2: "spleen"})


@pytest.fixture
def studies(tmp_path):
    folder = tmp_path / "studies"
    folder.mkdir()
    for number, name in enumerate(("a", "b", "case_0000")):
        write_volume(folder / f"{name}.nii.gz", scan(ball(), seed=number))
    return folder


def put(folder, name, array=None):
    folder.mkdir(parents=True, exist_ok=True)
    return write_mask(folder / name, ball() * 2 if array is None else array, grid())


def taken(folder, studies, tmp_path, names=NAMES):
    """Import; return the rows by the label's name, and what was saved by image."""
    saved = {}
    images = Images(studies, tmp_path / "work")
    rows = list(
        import_labels(find_labels(folder), images, names, save=lambda label: saved.update({label.image: label}))
    )
    return {row.file.name: row for row in rows}, saved


def test_names_that_fit(studies, tmp_path):
    experts = tmp_path / "experts"
    for name in ("a_seg.nii.gz", "b.seg.nrrd", "case.mha", "sub/nobody.nii.gz", ".hidden/a.nii.gz"):
        put((experts / name).parent, name.rpartition("/")[2])
    (experts / "notes.txt").write_text("x")
    rows, saved = taken(experts, studies, tmp_path)
    assert {name: row.image for name, row in rows.items() if not row.refused} == {
        "a_seg.nii.gz": "a",
        "b.seg.nrrd": "b",
        "case.mha": "case_0000",
    }
    assert rows["nobody.nii.gz"].refused and "No image has that name" in rows["nobody.nii.gz"].outcome
    assert find_labels(experts).passed_over == 1
    np.testing.assert_array_equal(saved["a"].array, ball() * 2)
    assert saved["a"].info()["label_info"] == [{"name": "liver", "idx": 1}, {"name": "spleen", "idx": 2}]
    assert rows["a_seg.nii.gz"].outcome == f"spleen {ball().sum() / 1000:.3g} ml"


def test_two_labels_of_one_image(studies, tmp_path):
    put(tmp_path / "experts", "a.nii.gz"), put(tmp_path / "experts", "a.nrrd")
    rows, _ = taken(tmp_path / "experts", studies, tmp_path)
    assert [row.refused for row in rows.values()] == [False, True] and "same image" in rows["a.nrrd"].outcome


def test_a_refused_label_leaves_the_others(studies, tmp_path):
    experts = tmp_path / "experts"
    put(experts, "a.nii.gz", ball() * 3), put(experts, "b.nii.gz")
    (experts / "case.nii.gz").write_text("garbage")
    rows, saved = taken(experts, studies, tmp_path)
    assert saved.keys() == {"b"} and "values 3 have no name" in rows["a.nii.gz"].outcome
    assert "not gzip-compressed" in rows["case.nii.gz"].outcome
    (studies / "b.nii.gz").write_text("garbage")
    rows, saved = taken(experts, studies, tmp_path)
    assert not saved and "The image itself cannot be used" in rows["b.nii.gz"].outcome


def test_decathlon(studies, tmp_path):
    task = tmp_path / "Task09"
    put(task / "labelsTr", "spleen_1.nii.gz")
    listed = {"labels": {"0": "background", "1": "x", "2": "spleen"}}
    pairs = [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/spleen_1.nii.gz"}]
    (task / "dataset.json").write_text(json.dumps({**listed, "training": pairs}))
    rows, saved = taken(task, studies, tmp_path, ImportNames())
    assert saved["a"].names == {"x": 1, "spleen": 2} and rows["spleen_1.nii.gz"].image == "a"
    _, saved = taken(task, studies, tmp_path, ImportNames({2: "x"}))
    assert saved["a"].names == {"x": 2}, "what the user says comes first"


def test_nnunet(studies, tmp_path):
    put(tmp_path / "Dataset1" / "labelsTr", "case.nii.gz")
    (tmp_path / "Dataset1" / "imagesTr").mkdir()
    (tmp_path / "Dataset1" / "dataset.json").write_text('{"labels": {"background": 0, "tumour": 2, "all": [1, 2]}}')
    _, saved = taken(tmp_path / "Dataset1", studies, tmp_path, ImportNames())
    assert saved["case_0000"].names == {"tumour": 2}


def test_names_of_lists_that_say_nothing():
    for labels in (None, [1], {"0": "background"}, {"a": None}):
        assert value_names({"labels": labels}) == {}
    with pytest.raises(InputError, match="have the name 'x'"):
        ImportNames().of({1: "x", 2: "x"})


def test_dicom(tmp_path):
    """A SEG goes to the series that it refers to; a volume to the series in the folder of its name."""
    frames = np.random.default_rng(0).integers(0, 99, (6, 10, 12))
    studies = tmp_path / "studies"
    write_slices(studies / "patient_7", frames, [(0, 0, 2 * k) for k in range(6)])
    series = next(iter(Catalogue(studies, dict, tmp_path / "work").dicom_series().values()))
    geometry = read_volume(series.scan_path()).geometry
    mask = (frames > 50).astype(np.uint8)
    experts = tmp_path / "experts"
    experts.mkdir()
    write_seg(mask, geometry, series, SegNames({"liver": 1}, "1", "1.2.77")).save_as(experts / "1.dcm")
    rows, saved = taken(experts, studies, tmp_path, ImportNames())
    assert rows["1.dcm"].image == series.uid and saved[series.uid].names == {"liver": 1}
    np.testing.assert_array_equal(saved[series.uid].array, mask)
    (experts / "1.dcm").rename(tmp_path / "1.dcm")
    write_mask(experts / "patient_7.nii.gz", mask, geometry)
    assert taken(experts, studies, tmp_path)[0]["patient_7.nii.gz"].image == series.uid
    (tmp_path / "1.dcm").rename(experts / "1.dcm")
    (tmp_path / "none").mkdir()
    rows, _ = taken(experts, tmp_path / "none", tmp_path)
    assert "not among the images" in rows["1.dcm"].outcome


def test_nothing_to_import(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(NotFound):
            find_labels(folder)
