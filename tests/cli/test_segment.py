"""The command ``slicecast segment``, with the bundled model on the sample data."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from slicecast.cli.main import app
from slicecast.config import project_dir
from slicecast.volume import read_volume, write_mask

STUDIES = project_dir("sample-data") / "studies"
TRUTH = project_dir("sample-data") / "truth"
IMAGE = STUDIES / "ct_abdomen_b.nii.gz"


@pytest.fixture(autouse=True)
def _bundled_model(monkeypatch):
    monkeypatch.setenv("SLICECAST_MODEL", "sam2_nano")


def run(*words) -> object:
    return CliRunner().invoke(app, ["segment", *map(str, words)])


def largest_slice(truth: np.ndarray) -> tuple[int, np.ndarray]:
    k = int(truth.sum(axis=(1, 2)).argmax())
    return k, truth[k]


def test_one_click_gives_a_mask_a_report_and_a_picture(tmp_path):
    truth = read_volume(TRUTH / IMAGE.name).array == 3
    k, area = largest_slice(truth)
    j, i = (int(np.median(places)) for places in np.nonzero(area))
    out, report, picture = tmp_path / "out.nii.gz", tmp_path / "out.json", tmp_path / "out.png"
    done = run(IMAGE, "-o", out, "--point", f"kidney={i},{j},{k}", "--json", report, "--picture", picture)
    assert done.exit_code == 0, done.output
    mask, image = read_volume(out), read_volume(IMAGE)
    assert mask.array.dtype == np.uint8 and not mask.geometry.differences(image.geometry)
    assert mask.array[k, j, i] == 1
    found = json.loads(report.read_text())
    assert found["objects"]["kidney"]["voxels"] == int((mask.array == 1).sum()) > 0
    assert found["axis"] == "axial" and found["seconds"]["total"] > 0
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert "kidney:" in done.output


def test_a_line_starts_in_its_middle(tmp_path):
    out = tmp_path / "out.nrrd"
    done = run(IMAGE, "-o", out, "--line", "kidney=47,70,16:47,70,20", "--range", "16:21")
    assert done.exit_code == 0, done.output
    assert (read_volume(out).array[16:21, 70, 47] == 1).all()


def test_all_slice_axes_take_more_slices(tmp_path):
    click = ("--point", "kidney=47,70,18", "--range", "14:23")
    walked = []
    for words in ((), ("--multi-axis",)):
        done = run(IMAGE, "-o", tmp_path / "out.nrrd", *click, *words, "--json", tmp_path / "out.json")
        assert done.exit_code == 0, done.output
        walked.append(json.loads((tmp_path / "out.json").read_text())["slices_walked"])
    assert walked[1] > walked[0]


def test_a_painted_slice_comes_back_unchanged(tmp_path):
    truth = read_volume(TRUTH / IMAGE.name)
    k, area = largest_slice(truth.array == 1)
    painted = np.zeros_like(truth.array, dtype=np.uint8)
    painted[k] = area
    write_mask(tmp_path / "slice.nii.gz", painted, truth.geometry)
    out = tmp_path / "out.nrrd"
    done = run(IMAGE, "-o", out, "--mask", f"liver={tmp_path / 'slice.nii.gz'}", "--range", f"{k - 2}:{k + 3}")
    assert done.exit_code == 0, done.output
    mask = read_volume(out).array
    assert (mask[k] == painted[k]).all()
    assert not mask[: k - 2].any() and not mask[k + 3 :].any()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--point", "a=999,0,0"], "outside the volume"),
        (["--line", "a=1,1,1:1,1,99"], "outside the volume"),
        (["--point", "a=1,1,1", "--axis", "diagonal"], "Unknown slice axis"),
        (["--point", "a=1,1,1", "--range", "5-9"], "not of the form A:B"),
        (["--point", "a=1,1,1", "--range", "5:9"], "outside the range"),
        (["--point", "a=1,1,1", "--model", "sam9"], "No model 'sam9'"),
        ([], "There is no prompt"),
    ],
)
def test_a_wrong_request_is_one_sentence(tmp_path, words, says):
    done = run(IMAGE, "-o", tmp_path / "out.nii.gz", *words)
    assert done.exit_code == 2
    assert says in done.output
    assert not (tmp_path / "out.nii.gz").exists()


def test_the_scan_is_not_written_over(tmp_path):
    scan = tmp_path / IMAGE.name
    scan.write_bytes(IMAGE.read_bytes())
    done = run(scan, "-o", scan, "--point", "a=47,70,18", "--range", "18:19")
    assert done.exit_code == 2 and "the scan itself" in done.output
    assert scan.read_bytes() == IMAGE.read_bytes()


def test_a_missing_image_is_one_sentence(tmp_path):
    done = run(tmp_path / "none.nii.gz", "-o", tmp_path / "out.nii.gz", "--point", "a=1,1,1")
    assert done.exit_code == 2
    assert "none.nii.gz" in done.output
