"""The command ``slicecast evaluate``, with the bundled model on the sample data."""

import json

import pytest
from typer.testing import CliRunner

from slicecast.cli.main import app
from slicecast.config import project_dir


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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--protocol", "seed-exact"), "seed-exact"),
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
