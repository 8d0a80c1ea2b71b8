"""The command ``slicecast replay``, with the bundled model."""

import pytest
from builders import ball, scan
from typer.testing import CliRunner

from slicecast.cli.main import app
from slicecast.inference.segment import SegmentService
from slicecast.inference.sessions import Sessions
from slicecast.prompts import Point
from slicecast.volume import read_volume, write_volume


def run(*words):
    return CliRunner().invoke(app, ["replay", *map(str, words)])


@pytest.fixture
def mask(tmp_path):
    """What a session gave."""
    write_volume(tmp_path / "ball.nii.gz", scan(ball()))
    sessions = Sessions(SegmentService(model="sam2_nano", device="cpu"), tmp_path / "kept", new_id=lambda: "s1")
    sessions.open(tmp_path / "ball.nii.gz", image_id="ball")
    for voxel in ((12, 10, 8), (12, 10, 11)):
        sessions.add("s1", [("ball", Point(voxel))])
        result = sessions.propagate("s1").result
    return result.mask


def test_a_session_and_its_log_give_the_mask_again(mask, tmp_path):
    stored = "--session", "s1", "--folder", tmp_path / "kept", "--device", "cpu"
    done = run(*stored, "-o", tmp_path / "a.nii.gz", "--log", tmp_path / "log.jsonl")
    assert done.exit_code == 0 and "ball at revision 2" in done.output, done.output
    assert run(tmp_path / "log.jsonl", "-o", tmp_path / "b.nii.gz", "--device", "cpu").exit_code == 0
    assert all((read_volume(tmp_path / name).array == mask).all() for name in ("a.nii.gz", "b.nii.gz"))


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((), "Name one session"),
        (("log.jsonl", "--session", "s1"), "Name one session"),
        (("--session", "s1", "--folder", "nowhere", "-o", "x.nrrd"), "no sessions in nowhere"),
        (("missing.jsonl", "-o", "x.nrrd"), "not a session's log"),
    ],
)
def test_what_cannot_be_replayed_is_prompts(words, complaint):
    done = run(*words)
    assert done.exit_code == 2 and complaint in done.output
