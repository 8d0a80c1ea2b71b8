from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from builders import dice
from hypothesis import given, settings
from hypothesis import strategies as st
from tracking import (
    PLAIN,
    WHOLE,
    answer,
    clicked,
    clip_of,
    mask_of,
    painted,
    same_answers,
    tracker_of,
    walking_disk,
)

from slicecast.engine.anchors import find_anchors
from slicecast.engine.caches import EmbeddingCache
from slicecast.engine.crop_window import CropWindow, resample
from slicecast.engine.fusion import SliceAnswer
from slicecast.engine.ports import Observation
from slicecast.engine.postprocess import ObjectResult
from slicecast.engine.propagation import segment
from slicecast.engine.tracks import FAR_TIME, LOOK_AHEAD, Anchor, Track, propagate
from slicecast.errors import Cancelled
from slicecast_lab.simulation.fake import FakePredictor

CLIP = walking_disk(12)


def track_of(start=5, stop=12, **given):
    return Track(WHOLE, Anchor(start, answer(), "memory"), stop, **given)


def anchor_on(tracker, number):
    return find_anchors(tracker, [painted(number, CLIP[number])], WHOLE)[0]


@pytest.mark.parametrize(
    ("start", "stop", "slices"),
    [(5, 9, [6, 7, 8]), (5, 2, [4, 3]), (5, -1, [4, 3, 2, 1, 0]), (5, 6, []), (5, 4, []), (5, 5, [])],
)
def test_a_track_visits_the_slices_between_its_anchor_and_its_stop(start, stop, slices):
    track, visited = track_of(start, stop), []
    while track.live:
        visited += track.next_slices(1)
        track.take(answer(), "memory", keep=3)
    assert visited == slices == list(track.answers)


def test_a_track_looks_no_further_than_its_stop():
    assert list(track_of(5, 9).next_slices(2)) == [6, 7]
    assert list(track_of(5, 9).next_slices(99)) == [6, 7, 8]
    assert list(track_of(5, 2).next_slices(99)) == [4, 3]


def test_memory_is_kept_by_track_time_and_bounded():
    track = track_of()
    for n in range(5):
        track.take(answer(), f"slice {n}", keep=3)
    assert track.bank.anchors == ((0, "memory"),)
    assert track.bank.recent == ((3, "slice 2"), (4, "slice 3"), (5, "slice 4"))
    assert track.bank.time == 6 and track.bank.last == "slice 4"
    assert track_of().bank.last == "memory"


def test_the_anchor_ahead_lies_far_in_the_future():
    ahead = Anchor(9, answer(), "other")
    assert track_of(5, 9, ahead=ahead).bank.anchors == ((0, "memory"), (FAR_TIME, "other"))


@pytest.mark.parametrize(("absent_slices", "count"), [(0, 6), (1, 1), (2, 4)])
def test_a_track_ends_when_the_object_stays_away(absent_slices, count):
    there = [False, True, False, False, True, True]
    track = track_of(absent_slices=absent_slices)
    for present in there:
        if track.live:
            track.take(answer(np.ones((8, 8), bool)) if present else answer(), "memory", keep=3)
    assert len(track.answers) == count


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(0, 11), st.integers(-1, 12)), min_size=1, max_size=6))
def test_a_batch_of_tracks_equals_each_track_alone(plan):
    tracker = tracker_of(clip_of(CLIP))
    together = [Track(WHOLE, anchor_on(tracker, start), stop) for start, stop in plan]
    propagate(tracker, together)
    for (start, stop), batched in zip(plan, together, strict=True):
        alone = Track(WHOLE, anchor_on(tracker, start), stop)
        propagate(tracker, [alone])
        assert same_answers(alone.answers, batched.answers)


def test_directions_do_not_share_memory():
    """What lies behind a track's anchor cannot change what the track sees."""
    clip = clip_of(CLIP)
    other = clip.copy()
    other[:5] = 0.0
    tracks = []
    for frames in (clip, other):
        tracker = tracker_of(frames)
        pair = [Track(WHOLE, anchor_on(tracker, 5), stop) for stop in (12, -1)]
        propagate(tracker, pair)
        tracks.append(pair)
    (up, down), (other_up, other_down) = tracks
    assert same_answers(up.answers, other_up.answers)
    assert not same_answers(down.answers, other_down.answers)


def test_a_track_follows_its_object():
    tracker = tracker_of(clip_of(CLIP))
    track = Track(WHOLE, anchor_on(tracker, 0), 12)
    propagate(tracker, [track])
    track = ObjectResult(WHOLE, track.answers, ())
    for number in range(1, 12):
        seen = mask_of(track, number)
        assert 2 * (seen & CLIP[number]).sum() / (seen.sum() + CLIP[number].sum()) > 0.85


def test_slices_are_encoded_ahead_in_batches_and_only_once():
    batches = []

    class Counting(type(tracker_of(CLIP).predictor)):
        def encode(self, frames):
            batches.append(len(frames))
            return super().encode(frames)

    tracker = tracker_of(clip_of(CLIP), predictor=Counting())
    propagate(tracker, [Track(WHOLE, anchor_on(tracker, 6), stop) for stop in (12, -1)])
    assert batches == [1, 2 * LOOK_AHEAD, 3]
    assert tracker.encoded == 12


def test_a_large_input_is_encoded_when_it_is_needed():
    tracker = tracker_of(clip_of(CLIP), predictor=FakePredictor(image_size=320), cancelled=lambda: tracker.done >= 3)
    with pytest.raises(Cancelled):
        propagate(tracker, [Track(WHOLE, anchor_on(tracker, 6), stop) for stop in (12, -1)])
    assert tracker.encoded == 3


def test_progress_counts_every_answer():
    told = []
    tracker = tracker_of(clip_of(CLIP), progress=lambda done, what: told.append((done, what)))
    anchor = find_anchors(tracker, [clicked(6, (32, 32))], WHOLE)[0]
    propagate(tracker, [Track(WHOLE, anchor, 12), Track(WHOLE, anchor, 3)])
    assert told[0] == (1, "reading prompts") and told[-1] == (1 + 5 + 2, "propagating")
    assert all(first[0] < second[0] for first, second in pairwise(told))


class Listener(FakePredictor):
    """Notes the prior that it is given."""

    def __init__(self, *, listens: bool) -> None:
        super().__init__(appearance_prior=listens)
        self.heard: list = []

    def track(self, jobs, *, num_slices):
        self.heard += [job.prior for job in jobs]
        return super().track(jobs, num_slices=num_slices)


@pytest.mark.parametrize(
    ("listens", "option", "told"), [(True, "auto", True), (True, "off", False), (False, "on", True)]
)
def test_tracks_are_told_what_looks_like_the_object_when_asked_for(listens, option, told):
    truth = walking_disk()
    predictor = Listener(listens=listens)
    tracker = tracker_of(clip_of(truth), predictor=predictor, options=replace(PLAIN, evidence=option))
    segment(tracker, {"disk": [painted(4, truth[4])]})
    assert len(predictor.heard) == 8
    assert all((seen is not None) == told for seen in predictor.heard)
    if told:
        up = resample(truth[5].astype(np.float32), (128, 128)) > 0.5
        assert predictor.heard[0][up].mean() > 1 > -1 > predictor.heard[0][~up].mean()


def test_evidence_sharpens_masks_coarser_than_the_slices():
    rows, columns = np.indices((64, 64))
    stripes = np.stack([(abs(rows - 32) < 14) & ((columns + n) % 6 < 3) for n in range(5)])
    clip = clip_of(stripes)

    def overlap(option):
        tracker = tracker_of(clip, options=replace(PLAIN, evidence=option))
        found = segment(tracker, {"stripes": [painted(2, stripes[2])]})
        return dice(found.labels[3] > 0, stripes[3])

    assert overlap("on") > overlap("off") + 0.02


@pytest.mark.parametrize(("least_iou", "fits"), [(0.0, [True, True, True]), (0.4, [True, False, True])])
def test_a_mask_that_the_model_doubts_counts_as_gone(least_iou, fits):
    class Doubting(FakePredictor):
        def track(self, jobs, *, num_slices):
            iou = (0.9, 0.3, 0.5)[jobs[0].bank.time - 1]
            return [replace(seen, predicted_iou=iou) for seen in super().track(jobs, num_slices=num_slices)]

    tracker = tracker_of(clip_of(CLIP), predictor=Doubting())
    track = Track(WHOLE, anchor_on(tracker, 5), 9, least_iou=least_iou)
    propagate(tracker, [track])
    assert [seen.fits for seen in track.answers.values()] == fits


SHORT = clip_of(walking_disk(6))


@pytest.mark.parametrize(
    ("score", "mask", "present"), [(1.0, True, True), (0.0, True, False), (-3.0, True, False), (2.0, False, False)]
)
def test_an_object_is_present_when_score_and_mask_say_so(score, mask, present):
    shown = np.ones((8, 8), bool) if mask else None
    assert answer(shown, object_score=score).present is present


def test_an_answer_keeps_no_memory():
    seen = Observation(np.ones((4, 4), np.float32), 0.7, 3.0, memory="heavy")
    kept = SliceAnswer.of(seen, prompted=True)
    assert (kept.predicted_iou, kept.object_score, kept.agreement, kept.prompted) == (0.7, 3.0, 1.0, True)
    assert not hasattr(kept, "memory")


def test_slices_are_encoded_once_and_counted():
    tracker = tracker_of(SHORT)
    tracker.embed([(0, WHOLE), (1, WHOLE)])
    tracker.embed([(1, WHOLE), (2, WHOLE)])
    assert tracker.encoded == 3 and tracker.encode_s > 0


def test_everything_that_an_encoding_depends_on_is_in_its_key():
    tracker = tracker_of(SHORT)
    other_model = tracker_of(SHORT, predictor=FakePredictor(image_size=64))
    keys = {
        tracker.key(0, WHOLE),
        tracker.key(1, WHOLE),
        tracker.key(0, CropWindow(1, 0, 64, 64)),
        other_model.key(0, WHOLE),
    }
    assert len(keys) == 4
    assert tracker_of(SHORT).key(0, WHOLE) in keys


def test_another_request_finds_what_was_encoded():
    cache = EmbeddingCache(1 << 24)
    tracker_of(SHORT, cache=cache).embed([(0, WHOLE)])
    second = tracker_of(SHORT, cache=cache)
    second.embed([(0, WHOLE)])
    assert second.encoded == 0


def test_a_cancelled_request_encodes_nothing_more():
    stopped = tracker_of(SHORT, cancelled=lambda: True)
    with pytest.raises(Cancelled, match="Stopped after 0 slices"):
        stopped.embed([(0, WHOLE)])
    assert stopped.encoded == 0
