import numpy as np
import pytest
from tracking import WHOLE, answer, clip_of, tracker_of, walking_disk

from slicecast.engine.embeddings import EmbeddingCache
from slicecast.engine.fake import FakePredictor
from slicecast.engine.frames import View
from slicecast.engine.ports import Observation
from slicecast.engine.tracker import SliceAnswer
from slicecast.errors import Cancelled

CLIP = clip_of(walking_disk(6))


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
    tracker = tracker_of(CLIP)
    tracker.embed([(0, WHOLE), (1, WHOLE)])
    tracker.embed([(1, WHOLE), (2, WHOLE)])
    assert tracker.encoded == 3 and tracker.encode_s > 0


def test_everything_that_an_encoding_depends_on_is_in_its_key():
    tracker = tracker_of(CLIP)
    other_model = tracker_of(CLIP, predictor=FakePredictor(image_size=64))
    keys = {
        tracker.key(0, WHOLE),
        tracker.key(1, WHOLE),
        tracker.key(0, View(1, 0, 64, 64)),
        other_model.key(0, WHOLE),
    }
    assert len(keys) == 4
    assert tracker_of(CLIP).key(0, WHOLE) in keys


def test_another_request_finds_what_was_encoded():
    cache = EmbeddingCache(1 << 24)
    tracker_of(CLIP, cache=cache).embed([(0, WHOLE)])
    second = tracker_of(CLIP, cache=cache)
    second.embed([(0, WHOLE)])
    assert second.encoded == 0


def test_a_cancelled_request_encodes_nothing_more():
    stopped = tracker_of(CLIP, cancelled=lambda: True)
    with pytest.raises(Cancelled, match="Stopped after 0 slices"):
        stopped.embed([(0, WHOLE)])
    assert stopped.encoded == 0
