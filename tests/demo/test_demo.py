"""The demo's judgement and picture; the demo itself runs in `make demo`."""

import json

import labelserver  # noqa: F401 - imports MONAI Label without its warnings
import numpy as np
import pytest
from builders import KINDS, phantom
from matplotlib.image import imread
from typer.testing import CliRunner

from slicecast.demo import demo
from slicecast.demo.demo import ObjectRecord, SampleCase, copy_images
from slicecast.errors import ConfigError
from slicecast.volume import Volume, write_mask, write_volume


@pytest.fixture
def data(tmp_path):
    volume, truth = phantom()
    for name in ("studies", "truth"):
        (tmp_path / name).mkdir()
    write_volume(tmp_path / "studies" / "first.nii.gz", volume)
    write_mask(tmp_path / "truth" / "first.nii.gz", truth.astype(np.uint8) * 2, volume.geometry)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "box": 1, "ball": 2}}))
    return demo.SampleData(tmp_path)


def done_with(dice):
    volume, truth = phantom()
    record = ObjectRecord("first", "ball", (), (dice,), (0.5,), truth)
    return [(SampleCase("first", volume, truth.astype(np.uint8), {1: "ball"}), [record])]


def test_sample_data(data):
    case = data.case("first")
    assert isinstance(case.volume, Volume)
    assert data.names == {1: "box", 2: "ball"} and case.present == {2: "ball"}


def test_without_description(tmp_path):
    with pytest.raises(ConfigError, match="Make the sample data"):
        _ = demo.SampleData(tmp_path).names


@pytest.mark.parametrize(
    ("done", "problem"),
    [
        ([], ["nothing was annotated"]),
        (done_with(0.29), ["the mean Dice 0.29 is below 0.3"]),
        (done_with(0.31), []),
    ],
)
def test_masks_that_are_not_worth_having(done, problem):
    assert demo._too_bad(done) == problem


def test_labels_missing_on_disk(data, tmp_path):
    assert demo._labels_missing_on_disk(tmp_path / "studies") == ["no label was stored for first.nii.gz"]


def run(*options):
    import typer

    app = typer.Typer()
    app.command()(demo.main)
    return CliRunner().invoke(app, options)


def test_a_problem_ends_with_a_status(monkeypatch, tmp_path):
    monkeypatch.setattr(demo, "run_demo", lambda *_, **__: ["the server counts 1"])
    result = run("--output", str(tmp_path))
    assert result.exit_code == 1 and "FAILED: the server counts 1" in result.output


def test_an_error_ends_with_a_status(tmp_path):
    result = run("--data", str(tmp_path / "nowhere"), "--output", str(tmp_path / "out"))
    assert result.exit_code == 1 and "Make the sample data" in result.output


def test_success(monkeypatch, tmp_path):
    monkeypatch.setattr(demo, "run_demo", lambda *_, **__: [])
    result = run("--output", str(tmp_path))
    assert result.exit_code == 0 and "everything worked" in result.output


def test_the_report_is_written(tmp_path, capsys):
    demo._report(done_with(0.8), tmp_path, {})
    assert json.loads((tmp_path / "results.json").read_text())[0]["dice"] == [0.8]
    assert (tmp_path / "overview.png").is_file()
    assert "ball" in capsys.readouterr().out


@pytest.mark.parametrize("kind", KINDS)
def test_truth_and_result_are_outlined(tmp_path, kind):
    volume, truth = phantom(kind)
    case = SampleCase("first", volume, truth.astype(np.uint8), {1: "ball"})
    shifted = ObjectRecord("first", "ball", (), (0.7,), (0.1,), np.roll(truth, 3, axis=2))
    picture = imread(demo.draw_overview([(case, [shifted])], tmp_path / "new" / "overview.png"))
    green, red = picture[..., 1] - picture[..., 0] > 0.4, picture[..., 0] - picture[..., 1] > 0.5
    assert green.sum() > 100 and red.sum() > 100


def test_nothing_found_is_drawn_too(tmp_path):
    volume, truth = phantom()
    nothing = ObjectRecord("first", "ball", (), (), (), np.zeros_like(truth))
    case = SampleCase("first", volume, truth.astype(np.uint8), {1: "ball"})
    assert demo.draw_overview([(case, [nothing])], tmp_path / "overview.png").is_file()


def test_what_was_labelled_before_is_not_copied(tmp_path):
    studies = tmp_path / "studies"
    for folder in (studies / "labels" / "final", studies / "campaign"):
        folder.mkdir(parents=True)
    for file in ("a.nii.gz", "labels/final/a.nii.gz", "campaign/campaign.db", "datastore_v2.json"):
        (studies / file).write_bytes(b"")
    copied = copy_images(studies, tmp_path / "copy")
    assert [path.name for path in copied.rglob("*")] == ["a.nii.gz"]
