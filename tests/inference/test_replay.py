from dataclasses import replace
from pathlib import Path

import pytest
from builders import ball, scan

from slicecast.engine.fake import FakePredictor
from slicecast.errors import Conflict, InputError, PromptError, UnknownSession
from slicecast.inference.replay import read_log, replay, stored_log, write_log
from slicecast.inference.segment import SegmentService
from slicecast.inference.session_state import Said
from slicecast.inference.sessions import Sessions
from slicecast.prompts import Point
from slicecast.volume import write_volume


def service_of():
    return SegmentService(predictor=FakePredictor())


@pytest.fixture
def history(tmp_path):
    """A closed session, and its mask at each revision."""
    write_volume(tmp_path / "ball.nii.gz", scan(ball()))
    sessions = Sessions(service_of(), tmp_path / "sessions", new_id=lambda: "s1")
    sessions.open(tmp_path / "ball.nii.gz", image_id="ball")
    masks = [None]

    def after(_):
        masks.append(sessions.propagate("s1").result.mask)

    after(sessions.add("s1", [Said("ball", Point((12, 10, 8)))]))
    after(sessions.add("s1", [Said("ball", Point((12, 10, 11)))]))
    after(sessions.accept("s1", "ball", [9]))
    after(sessions.undo("s1"))
    after(sessions.remove("s1", "p1"))
    sessions.close("s1")
    return masks


def test_every_revision_is_replayed_exactly(history, tmp_path):
    log = stored_log(tmp_path / "sessions", "s1")
    for revision, mask in enumerate(history[1:], start=1):
        assert (replay(log.until(revision), service_of()).mask == mask).all()


def test_a_session_with_options_that_are_gone_is_still_replayed(history, tmp_path):
    log = stored_log(tmp_path / "sessions", "s1")
    gone = {"settle_slices": 1, "far_anchor": True}
    old = replace(log, header=replace(log.header, options={**log.header.options, **gone}))
    assert (replay(old, service_of()).mask == history[-1]).all()


def test_a_log_can_be_carried_elsewhere(history, tmp_path):
    log = stored_log(tmp_path / "sessions", "s1")
    write_log(tmp_path / "log.jsonl", log)
    assert read_log(tmp_path / "log.jsonl") == log
    moved = (tmp_path / "ball.nii.gz").rename(tmp_path / "moved.nii.gz")
    assert (replay(log, service_of(), image=moved).mask == history[-1]).all()


def test_what_cannot_be_replayed_is_said(history, tmp_path):
    log = stored_log(tmp_path / "sessions", "s1")
    with pytest.raises(PromptError, match="revisions 0 to 5, not 6"):
        log.until(6)
    with pytest.raises(PromptError, match="Nothing counts"):
        replay(log.until(0), service_of())
    with pytest.raises(Conflict, match="carried out by 'fake:128'"):
        replay(log, SegmentService(predictor=FakePredictor(image_size=64)))


def test_a_missing_session_or_a_wrong_file_is_named(history, tmp_path):
    with pytest.raises(UnknownSession, match="no session 's2'"):
        stored_log(tmp_path / "sessions", "s2")
    with pytest.raises(UnknownSession, match="no sessions in"):
        stored_log(tmp_path / "nowhere", "s1")
    assert not (tmp_path / "nowhere").exists()
    for text in ("", "{}\n", "not json"):
        (tmp_path / "wrong.jsonl").write_text(text)
        with pytest.raises(InputError, match=r"wrong.jsonl is not a session's log|is missing"):
            read_log(tmp_path / "wrong.jsonl")
    with pytest.raises(InputError, match="is not a session's log"):
        read_log(Path("/nowhere.jsonl"))
