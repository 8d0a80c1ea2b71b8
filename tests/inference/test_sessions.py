import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from builders import ORIENTATIONS, ball, dice, phantom, scan, stored_as

from slicecast.engine.options import EngineOptions
from slicecast.errors import (
    ConfigError,
    Conflict,
    InputError,
    NotFound,
    PromptError,
    SessionClosed,
    TooLarge,
    UnknownSession,
)
from slicecast.inference.segment import SegmentRequest, SegmentService
from slicecast.inference.session_store import read_log, stored_log, write_log
from slicecast.inference.sessions import Sessions, replay
from slicecast.inference.settings import RequestLimits
from slicecast.prompts import Absent, Box, Line, MaskPrompt, ObjectPrompts, Point, PromptSet
from slicecast.volume import write_volume
from slicecast_lab.simulation.fake import FakePredictor

CENTRE, HIGHER = Point((12, 10, 8)), Point((12, 10, 11))
TRUTH = ball()


@pytest.fixture
def image(tmp_path):
    write_volume(tmp_path / "ball.nii.gz", scan(TRUTH))
    return tmp_path / "ball.nii.gz"


def service_of():
    return SegmentService(predictor=FakePredictor())


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "sessions"


@pytest.fixture
def sessions(folder):
    ticks, numbers = count(), count(1)
    clock = lambda: datetime(2026, 11, 21, tzinfo=UTC) + timedelta(seconds=next(ticks))  # noqa: E731
    return Sessions(service_of(), folder, clock=clock, new_id=lambda: f"s{next(numbers)}")


@pytest.fixture
def opened(sessions, image):
    return sessions.open(image, image_id="ball").id


def prompts(*items, name="ball"):
    return [(name, item) for item in items]


def fresh(image, *points, **given):
    """What a new service answers to the whole set at once."""
    whole = PromptSet((ObjectPrompts("ball", points=points, **given),))
    return service_of().segment(SegmentRequest(image, whole)).mask


def test_a_new_session_is_empty(sessions, image):
    state = sessions.open(image, image_id="ball", owner="ana")
    assert (state.id, state.image_id, state.axis, state.owner, state.revision) == ("s1", "ball", "axial", "ana", 0)
    assert state.prompts == () and state.objects == () and not state.can_undo and not state.can_redo
    assert sessions.list() == (state,)
    with pytest.raises(PromptError, match="Nothing counts in this session"):
        sessions.propagate("s1")


def test_every_edit_gives_what_a_whole_request_gives(sessions, opened, image):
    state = sessions.add(opened, prompts(CENTRE))
    assert state.revision == 1 and [p.id for p in state.prompts] == ["p1"]
    assert (sessions.propagate(opened).result.mask == fresh(image, CENTRE)).all()
    state = sessions.add(opened, prompts(HIGHER))
    both = sessions.propagate(opened)
    assert both.revision == 2 and (both.result.mask == fresh(image, CENTRE, HIGHER)).all()
    assert both.result.slices_reused > 0
    sessions.remove(opened, "p2")
    assert (sessions.propagate(opened).result.mask == fresh(image, CENTRE)).all()
    assert sessions.undo(opened).can_redo
    again = sessions.propagate(opened).result
    assert (again.mask == both.result.mask).all() and again.slices_recomputed == 0


def test_several_objects_and_every_kind_of_prompt(sessions, opened):
    drawn = np.zeros(TRUTH.shape, bool)
    drawn[7, 2:5, 2:5] = True
    other = [*prompts(MaskPrompt(drawn), Absent(12), name="block"), *prompts(Box((8, 6, 8), (16, 14, 8)))]
    state = sessions.add(opened, other)
    assert state.objects == ("block", "ball")
    result = sessions.propagate(opened).result
    assert result.labels == {"block": 1, "ball": 2} and (result.mask[7] == 1).tolist() == drawn[7].tolist()


def test_a_line_is_kept_as_a_line_and_found_from_its_middle(sessions, opened, image):
    line = Line(((12, 10, 5), (12, 10, 11)))
    state = sessions.add(opened, prompts(line))
    assert [p.item for p in state.prompts] == [line] and state.given() == {
        "lines": {"ball": [[[12, 10, 5], [12, 10, 11]]]}
    }
    done = sessions.propagate(opened).result
    assert (done.mask == fresh(image, lines=(line,))).all() and done.mask[5:12, 10, 12].all()
    assert done.next_slice is not None  # where it only passes, a look is still worth it


def test_a_later_line_frees_the_painted_slices_that_it_passes(sessions, opened):
    drawn = np.zeros(TRUTH.shape, bool)
    drawn[2:14, 2:4, 2:4] = True
    sessions.add(opened, prompts(MaskPrompt(drawn)))
    sessions.add(opened, prompts(Line(((12, 10, 6), (12, 10, 8)))))
    mask = sessions.propagate(opened).result.mask
    assert mask[6:9, 10, 12].all() and mask[2, 2, 2]


def test_a_negative_click_alone_is_a_correction_and_waits_for_a_start(sessions, opened, image):
    beside = Point((3, 3, 9), positive=False)
    sessions.add(opened, prompts(beside))
    with pytest.raises(PromptError, match="Nothing counts"):
        sessions.propagate(opened)
    sessions.add(opened, prompts(CENTRE))
    assert (sessions.propagate(opened).result.mask == fresh(image, beside, CENTRE)).all()


def test_a_stock_clients_whole_set_is_compared_with_the_log(sessions, opened, image):
    def whole(*points):
        return PromptSet((ObjectPrompts("ball", points=points),))

    assert [p.id for p in sessions.replace(opened, whole(CENTRE)).prompts] == ["p1"]
    assert [p.id for p in sessions.replace(opened, whole(HIGHER, CENTRE)).prompts] == ["p1", "p2"]
    assert sessions.replace(opened, whole(HIGHER, CENTRE)).revision == 2
    assert [p.id for p in sessions.replace(opened, whole(HIGHER)).prompts] == ["p2"]
    assert (sessions.propagate(opened).result.mask == fresh(image, HIGHER)).all()
    assert [p.id for p in sessions.undo(opened).prompts] == ["p1", "p2"]


def test_accepted_slices_are_never_overwritten(sessions, opened):
    sessions.add(opened, prompts(CENTRE))
    before = sessions.propagate(opened).result.mask
    state = sessions.accept(opened, "ball", [8, 9, 9, 14])
    assert state.accepted == {"ball": (8, 9, 14)}
    assert (sessions.propagate(opened).result.mask == before).all()
    sessions.add(opened, prompts(Point((13, 10, 9), positive=False), Point((12, 10, 14)), Point((12, 11, 7))))
    after = sessions.propagate(opened).result.mask
    assert (after[[8, 9]] == before[[8, 9]]).all() and not after[14].any() and not before[14].any()
    sessions.add(opened, prompts(Point((12, 10, 9)), name="rival"))
    rival = sessions.propagate(opened).result
    assert ((rival.mask == rival.labels["ball"])[[8, 9]] == (before == 1)[[8, 9]]).all()
    assert sessions.release(opened, "ball", [9]).accepted == {"ball": (8, 14)}
    assert sessions.undo(opened).accepted == {"ball": (8, 9, 14)}


def test_what_cannot_be_accepted_is_prompts(sessions, opened):
    sessions.add(opened, prompts(CENTRE))
    with pytest.raises(NotFound, match="no object 'liver'"):
        sessions.accept(opened, "liver", [8])
    with pytest.raises(PromptError, match="no slice 16 to accept; slices run from 0 to 15"):
        sessions.accept(opened, "ball", [16])


def test_sessions_outlive_the_process(sessions, opened, folder):
    sessions.add(opened, prompts(CENTRE))
    sessions.accept(opened, "ball", [8])
    sessions.add(opened, prompts(HIGHER))
    sessions.undo(opened)
    later = Sessions(service_of(), folder)
    assert later.state(opened) == sessions.state(opened)
    assert (later.propagate(opened).result.mask == sessions.propagate(opened).result.mask).all()
    assert later.redo(opened).revision == 5


@pytest.mark.parametrize("orientation", ORIENTATIONS[::7])
def test_slices_and_masks_are_those_of_the_stored_grid(orientation, tmp_path):
    scene = phantom("anisotropic")
    volume = stored_as(scene.volume, *orientation)
    truth = stored_as(scene.volume.with_array(scene.truth), *orientation).array > 0
    path = tmp_path / "turned.nii.gz"
    write_volume(path, volume)
    middle = np.argwhere(truth)[np.count_nonzero(truth) // 2][::-1].tolist()
    sessions, told = Sessions(service_of(), tmp_path / "s"), []
    opened = sessions.open(path, image_id="turned").id
    sessions.add(opened, prompts(Point(tuple(middle))))
    result = sessions.propagate(opened, on_slice=told.append).result
    assert dice(result.mask > 0, truth) > 0.6
    along = next(n for n in range(3) if truth.shape[n] == 8)
    shown = {u.slice: u.mask for u in told if u.final}
    assert {c.slice for c in result.confidence} == shown.keys()
    # No holes and no loose parts here, so that a slice's mask is already the result's.
    assert all((np.take(result.mask, n, axis=along) > 0).tolist() == mask.tolist() for n, mask in shown.items())
    numbers = sorted(shown)[1:3]
    sessions.accept(opened, "ball", numbers)
    again = sessions.propagate(opened).result.mask
    assert all((np.take(again, n, axis=along) == np.take(result.mask, n, axis=along)).all() for n in numbers)
    number = middle[sessions.grid(opened).place]
    there = sessions.grid(opened).slice(truth, number)
    assert max(dice(mask, there) for mask in sessions.readings(opened, "ball", number)) > 0.9


def test_slices_are_told_nearest_first(sessions, opened):
    sessions.add(opened, prompts(CENTRE))
    told = []
    sessions.propagate(opened, on_slice=told.append)
    distances = [abs(u.slice - 8) for u in told]
    assert distances == sorted(distances) and distances[0] == 0 and not any(u.reused for u in told)
    assert all(u.object == "ball" and 0 <= u.confidence <= 1 and u.seconds >= 0 for u in told)
    sessions.propagate(opened, on_slice=told.append)
    assert all(u.reused for u in told[len(distances) :])


def test_a_cancelled_run_keeps_what_was_done(sessions, opened, image):
    sessions.add(opened, prompts(CENTRE))
    told = []
    found = sessions.propagate(opened, on_slice=told.append, cancelled=lambda: len(told) >= 5).result
    whole = fresh(image, CENTRE)
    shown = {u.slice for u in told if u.mask.any()}
    assert found.partial and len(told) <= 7 and found.warnings == ()
    assert all((found.mask[n] == whole[n]).all() for n in shown)
    assert not np.delete(found.mask, sorted(shown), axis=0).any()
    rest = sessions.propagate(opened).result
    assert not rest.partial and rest.slices_reused >= 5 and (rest.mask == whole).all()


def test_cancelled_before_anything_is_known_nothing_is_there(sessions, opened):
    sessions.add(opened, prompts(CENTRE))
    found = sessions.propagate(opened, cancelled=lambda: True).result
    assert found.partial and not found.mask.any()


def test_a_session_that_has_changed_meanwhile_is_not_changed_blindly(sessions, opened):
    sessions.add(opened, prompts(CENTRE), expected_revision=0)
    with pytest.raises(Conflict, match="at revision 1, not 0"):
        sessions.add(opened, prompts(HIGHER), expected_revision=0)
    assert sessions.state(opened).revision == 1


def test_what_does_not_fit_is_refused_and_not_kept(sessions, opened):
    wrong = [
        (prompts(Point((24, 0, 0))), "outside the volume"),
        (prompts(Absent(16)), "no slice 16"),
        (prompts(Line(((0, 0, 0), (0, 0, 16)))), "outside the volume"),
        (prompts(CENTRE, Point((12, 10, 8), positive=False)), "both a positive and a negative"),
        (prompts(CENTRE, Absent(8)), "marked as not showing"),
        (prompts(MaskPrompt(np.ones((3, 3, 3)))), "does not fit the volume"),
        (prompts(CENTRE, name=" "), "no name"),
    ]
    for given, complaint in wrong:
        with pytest.raises(PromptError, match=complaint):
            sessions.add(opened, given)
    assert sessions.state(opened).revision == 0


def test_a_session_may_hold_so_many_points_and_no_more(sessions, opened, monkeypatch):
    monkeypatch.setattr("slicecast.inference.settings.request_limits", lambda: RequestLimits(points=2))
    sessions.add(opened, prompts(CENTRE, HIGHER))
    with pytest.raises(TooLarge, match="3 points were sent; at most 2"):
        sessions.add(opened, prompts(Point((12, 11, 8))))
    assert sessions.undo(opened).revision == 2
    with pytest.raises(TooLarge, match="points were sent"):
        sessions.replace(opened, prompts(Line(((12, 10, 6), (12, 10, 9)))))


def test_every_call_opens_the_image_once(sessions, opened, monkeypatch):
    studies, opens = sessions._service.studies, []
    open_ = studies.open
    monkeypatch.setattr(studies, "open", lambda path: opens.append(path) or open_(path))
    for call in (
        lambda: sessions.add(opened, lambda grid: prompts(CENTRE)),
        lambda: sessions.propagate(opened),
        lambda: sessions.accept(opened, "ball", [8]),
        lambda: sessions.undo(opened),
    ):
        opens.clear()
        call()
        assert len(opens) == 1


def test_closed_and_unknown_sessions_are_told_apart(sessions, opened):
    sessions.close(opened)
    with pytest.raises(SessionClosed, match="was closed on 2026-11-21"):
        sessions.state(opened)
    with pytest.raises(UnknownSession, match="no session 'x'"):
        sessions.undo("x")
    assert sessions.list() == ()


def test_sessions_are_opened_on_what_can_be_carried_out(sessions, image, tmp_path):
    with pytest.raises(Conflict, match="'sam99' was asked for"):
        sessions.open(image, image_id="ball", model="sam99")
    for given, complaint in (({"axis": "diagonal"}, "diagonal"), ({"window": "sunny"}, "sunny")):
        with pytest.raises(ConfigError, match=complaint):
            sessions.open(image, image_id="ball", **given)


def test_options_are_the_sessions_own(sessions, image):
    opened = sessions.open(image, image_id="ball", options=EngineOptions(gone_slices=0, like_share=0.0)).id
    sessions.add(opened, prompts(CENTRE))
    assert len(sessions.propagate(opened).result.confidence) == 16


def test_many_annotators_at_once_lose_nothing(sessions, image):
    opened = [sessions.open(image, image_id="ball").id for _ in range(3)]

    def work(session, n):
        for k in range(4):
            sessions.add(session, prompts(Point((10 + n, 8 + k, 8))))

    threads = [threading.Thread(target=work, args=(session, n)) for session in opened for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    states = [sessions.state(session) for session in opened]
    assert [state.revision for state in states] == [12, 12, 12]
    assert all(len({p.id for p in state.prompts}) == 12 for state in states)


@pytest.fixture
def history(tmp_path):
    """A closed session, and its mask at each revision."""
    write_volume(tmp_path / "ball.nii.gz", scan(ball()))
    sessions = Sessions(service_of(), tmp_path / "sessions", new_id=lambda: "s1")
    sessions.open(tmp_path / "ball.nii.gz", image_id="ball")
    masks = [None]

    def after(_):
        masks.append(sessions.propagate("s1").result.mask)

    after(sessions.add("s1", [("ball", Point((12, 10, 8)))]))
    after(sessions.add("s1", [("ball", Point((12, 10, 11)))]))
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


def test_what_cannot_be_replayed_is_prompts(history, tmp_path):
    log = stored_log(tmp_path / "sessions", "s1")
    with pytest.raises(PromptError, match="revisions 0 to 5, not 6"):
        log.until(6)
    with pytest.raises(PromptError, match="Nothing counts"):
        replay(log.until(0), service_of())
    with pytest.raises(Conflict, match="'fake:128' was asked for"):
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
