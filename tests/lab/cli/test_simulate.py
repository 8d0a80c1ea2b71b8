"""The command ``slicecast simulate``, with the bundled model on the sample data."""

import json

import pytest
from typer.testing import CliRunner

from slicecast.cli.main import app
from slicecast.config import project_dir

CASES = ("mr_brain_a", "mr_brain_b")


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Two sample scans in the layout of a set: one may be labelled, on the other it is measured."""
    monkeypatch.setenv("SLICECAST_MODEL", "sam2_nano")
    sample, root = project_dir("sample-data"), tmp_path / "set"
    for folder, origin in (("images", "studies"), ("labels", "truth")):
        (root / folder).mkdir(parents=True)
        for name in CASES:
            (root / folder / f"{name}.nii.gz").symlink_to(sample / origin / f"{name}.nii.gz")
    (root / "split.json").write_text(json.dumps({"pool": [CASES[0]], "test": [CASES[1]]}))
    return root


def run(*words):
    return CliRunner().invoke(app, ["simulate", *map(str, words)])


def test_a_campaign_is_played_drawn_and_kept(data, tmp_path):
    report, plot, store = tmp_path / "out.json", tmp_path / "out.png", tmp_path / "done.jsonl"
    words = (
        "--experiment",
        "slices",
        "--strategies",
        "strided",
        "--corrections",
        "1",
        "--label",
        "8",
        "--store",
        store,
    )
    done = run("--data", data, *words, "--json", report, "--plot", plot)
    assert done.exit_code == 0, done.output
    assert "Which slice next" in done.output and plot.stat().st_size > 1000
    first = report.read_bytes()
    assert json.loads(first)["model"]["name"] == "sam2_nano"
    assert run("--data", data, *words, "--json", report).exit_code == 0
    assert report.read_bytes() == first and len(store.read_text().split("\n")) == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--experiment", "voxels"), "voxels"),
        (("--strategies", "clever"), "clever"),
        (("--experiment", "slices", "--strategies", "best"), "best"),
        (("--budgets", "1,two"), "two"),
        (("--budgets", "5,3"), "ascend"),
        (("--robot", "tired"), "tired"),
        (("--experiment", "slices", "--strokes", "spray"), "spray"),
        (("--jobs", "0"), "0 processes"),
        (("--experiment", "joint", "--strategies", "oracle", "--budgets", "1"), "oracle"),
        (("--budgets", "1,2"), "1 volumes"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(data, words, said):
    done = run("--data", data, "--label", "8", *words)
    assert done.exit_code == 2 and said in done.output
    assert "Traceback" not in done.output
