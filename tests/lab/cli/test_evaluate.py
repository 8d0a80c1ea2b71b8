"""The command ``slicecast evaluate``, with the bundled model on the sample data."""

import json

import numpy as np
import pytest
from builders import scan
from typer.testing import CliRunner

from slicecast.cli.main import app
from slicecast.config import project_dir
from slicecast.volume import write_mask, write_volume


@pytest.fixture
def data(tmp_path, monkeypatch):
    """One sample scan in the layout of a set."""
    monkeypatch.setenv("SLICECAST_MODEL", "sam2_nano")
    sample = project_dir("sample-data")
    for folder, origin in (("images", "studies"), ("labels", "truth")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mr_brain_a.nii.gz").symlink_to(sample / origin / "mr_brain_a.nii.gz")
    return tmp_path


def run(*words):
    return CliRunner().invoke(app, ["evaluate", *map(str, words)])


def test_a_set_is_measured(data, tmp_path):
    report, picture = tmp_path / "out.json", tmp_path / "out.png"
    words = ("--label", "8", "--baselines", "copy,copy-extent", "--json", report, "--picture", picture)
    done = run("--data", data, *words)
    assert done.exit_code == 0, done.output
    assert "Dice" in done.output and "copy-extent" in done.output
    written = json.loads(report.read_text())
    assert written["cases"][0]["id"] == "mr_brain_a" and written["circumstances"]["model"]["name"] == "sam2_nano"
    assert picture.stat().st_size > 1000


def test_engines_of_any_kind_are_compared_on_the_same_cases(data, tmp_path):
    report = tmp_path / "out.json"
    words = ("--label", "7", "--prompt", "clicks:2", "--model", "sam2_nano,ct_sam3d_nano", "--json", report)
    done = run("--data", data, *words)
    assert done.exit_code == 0, done.output
    assert "2 engines" in done.output
    first, second = json.loads(report.read_text())["reports"]
    assert [r["circumstances"]["model"]["name"] for r in (first, second)] == ["sam2_nano", "ct_sam3d_nano"]
    assert first["cases"][0]["slice"] == second["cases"][0]["slice"]
    assert first["cases"][0]["dice"] != second["cases"][0]["dice"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--model", "sam2_nano,nothing"), "nothing"),
        (("--model", "ct_sam3d_nano", "--baselines", "monailabel"), "no SAM 2"),
        (("--model", "ct_sam3d_nano", "--protocol", "seed-exact", "--prompt", "clicks:1"), "no SAM 2"),
        (("--model", "sam2_nano,ct_sam3d_nano", "--picture", "out.png"), "several"),
        (("--protocol", "seed-exact", "--prompt", "box"), "box"),
        (("--protocol", "seed-exact", "--slice", "largest"), "--slice"),
        (("--protocol", "seed-exact", "--baselines", "copy"), "--baselines"),
        (("--preset", "paper"), "paper"),
        (("--preset", "seed"), "--label"),
        (("--protocol", "loose"), "loose"),
        (("--prompt", "scribble"), "scribble"),
        (("--slice", "first"), "first"),
        (("--picture", "out.gif"), "out.gif"),
        (("--split", "test"), "split.json"),
        (("--label", "99"), "does not show label 99"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(data, words, said):
    label = () if "--label" in words else ("--label", "8")
    done = run("--data", data, *label, *words)
    assert done.exit_code == 2 and said in done.output
    assert "Traceback" not in done.output


def test_fixed_needs_a_label(data):
    done = run("--data", data)
    assert done.exit_code == 2 and "--label 1" in done.output


def test_the_published_protocol_is_measured(data, tmp_path):
    report = tmp_path / "out.json"
    words = ("--protocol", "seed-exact", "--prompt", "clicks:2", "--salient", "20", "--label", "8", "--json", report)
    done = run("--data", data, *words)
    assert done.exit_code == 0, done.output
    written = json.loads(report.read_text())
    assert written["protocol"] == "seed-exact" and written["settings"]["prompt"] == "clicks:2"
    assert "order of visits" in done.output


@pytest.fixture
def sets(tmp_path, monkeypatch):
    """Two of the study's sets as they are unpacked, tiny."""
    monkeypatch.setenv("SLICECAST_MODEL", "sam2_nano")
    truth = np.zeros((6, 40, 40), dtype=np.uint8)
    truth[1:5, 8:30, 8:30] = 2
    truth[1:5, 12:16, 12:16] = 1
    spleen, brats = tmp_path / "Task09_Spleen", tmp_path / "MICCAI_BraTS2020_TrainingData" / "BraTS20_Training_001"
    files = {
        spleen / "imagesTr" / "spleen_2.nii.gz": spleen / "labelsTr" / "spleen_2.nii.gz",
        brats / "BraTS20_Training_001_flair.nii": brats / "BraTS20_Training_001_seg.nii",
    }
    for image, label in files.items():
        image.parent.mkdir(parents=True)
        label.parent.mkdir(parents=True, exist_ok=True)
        write_volume(image, scan(truth > 0))
        write_mask(label, truth, scan(truth > 0).geometry)
    return tmp_path


def test_the_preset_prints_the_studys_table(sets, tmp_path):
    report = tmp_path / "out.json"
    done = run("--data", sets, "--preset", "seed", "--model", "sam2_nano", "--json", report)
    assert done.exit_code == 0, done.output
    assert "| model | prompt | BraTS2020 | Spleen | Liver | Lung | Pancreas |" in done.output
    rows = [line for line in done.output.splitlines() if line.startswith("| sam2_nano |")]
    assert [row.split(" | ")[1] for row in rows] == ["1 click", "5 clicks", "1 mask"]
    assert all(row.count("1 cases") == 2 and row.count(" - ") == 3 for row in rows)
    assert "Liver, Lung, Pancreas." in done.output
    written = json.loads(report.read_text())
    assert [r["set"] for r in written["reports"]] == ["BraTS2020"] * 3 + ["Spleen"] * 3
