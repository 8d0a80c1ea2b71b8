"""What is made of a volume without a label, with a predictor without weights."""

import numpy as np
import pytest
from builders import ball, scan, stored_as

from slicecast.engine.caches import EmbeddingCache
from slicecast.engine.options import EngineOptions
from slicecast.engine.tracks import Tracker
from slicecast.errors import Cancelled
from slicecast.inference.predictors import QueuedPredictor
from slicecast.inference.queue import DeviceQueue
from slicecast.inference.studies import open_study
from slicecast.labelling.volume_scores import (
    MAX_STRUCTURES,
    CachedScores,
    ScoreStore,
    VolumeScorer,
    extent_of,
    mirrored,
    object_scores,
    region,
    run_passes,
)
from slicecast.volume import SliceAxis
from slicecast.volume.metrics import dice
from slicecast_lab.simulation.fake import FakePredictor

NAMES = {"disagree", "cycle", "object_entropy", "confidence"}


def scorer(**given):
    return VolumeScorer(QueuedPredictor(FakePredictor(), DeviceQueue()), **given)


def support(scorer, truth=None):
    truth = ball() if truth is None else truth
    return scorer.learn("known", open_study(scan(truth)), truth.astype(np.uint8), {"ball": 1})


def test_an_easy_volume_is_found_and_leads_back():
    mine = scorer()
    truth = ball(centre_ijk=(13, 9, 8))
    found = mine.score(open_study(scan(truth, seed=3)), support(mine))
    assert set(found.scores) == NAMES and found.support == "known" and found.seconds > 0
    assert dice(found.masks["ball"], truth) > 0.8
    assert found.scores["cycle"] < 0.2 and all(0.0 <= value <= 1.0 for value in found.scores.values())


def test_a_volume_without_the_object_is_the_unsure_one():
    mine = scorer()
    known = support(mine)
    empty = mine.score(open_study(scan(np.zeros((16, 20, 24), bool), noise=25.0)), known)
    easy = mine.score(open_study(scan(ball(), seed=1)), known)
    assert empty.scores["cycle"] > easy.scores["cycle"]


def test_the_same_volume_has_the_same_scores():
    first, second = scorer(seed=4), scorer(seed=4)
    study = open_study(scan(ball(radius=4.0), seed=2))
    assert first.score(study, support(first)).scores == second.score(study, support(second)).scores


def test_looks_do_not_depend_on_how_the_file_is_stored():
    volume = scan(ball(centre_ijk=(9, 8, 7)))
    turned = stored_as(volume, (2, 0, 1), (True, False, True))
    mine = scorer()
    assert mine.embed(open_study(volume)) == pytest.approx(mine.embed(open_study(turned)))


def test_the_smallest_structures_are_kept():
    label = np.zeros((16, 20, 24), np.uint8)
    for n in range(1, 7):
        label[4:12, 3 * n - 2 : 3 * n, 2 : 2 + 2 * n] = n
    found = scorer().learn("known", open_study(scan(label > 0)), label, {f"s{n}": n for n in range(1, 8)})
    assert list(found.slices) == ["s1", "s2", "s3", "s4"] and len(found.slices) == MAX_STRUCTURES


def test_it_ends_when_it_is_told_to():
    mine = scorer()
    known = support(mine)
    with pytest.raises(Cancelled):
        scorer(cancelled=lambda: True).score(open_study(scan(ball())), known)


def test_the_body_s_extent_is_in_the_order_of_the_slices():
    study = open_study(scan(ball(centre_ijk=(8, 10, 8), radius=4.0), noise=0.0))
    assert extent_of(study, SliceAxis.AXIAL).tolist() == [[4, 6, 4], [12, 14, 12]]
    assert extent_of(study, SliceAxis.SAGITTAL).tolist() == [[6, 4, 4], [14, 12, 12]]


def test_it_is_found_again_by_file_and_content_for_the_same_model_only(tmp_path):
    scores, embedding = {"disagree": 0.25}, np.array([0.5, -2.0], np.float32)
    known = CachedScores("abc", "", embedding, scores, {"a": scores}, "s", 3)
    store = ScoreStore(tmp_path, "model 1")
    store.keep(("file", 1, 2), known)
    store.close()
    again = ScoreStore(tmp_path, "model 1")
    found = again.load("abc")
    assert again.content_of(("file", 1, 2)) == "abc" and again.content_of(("file", 1, 3)) is None
    assert found.to_bytes() == known.to_bytes() and found.embedding.dtype == np.float32
    assert ScoreStore(tmp_path, "model 2").load("abc") is None


AXES = (SliceAxis.AXIAL, SliceAxis.CORONAL)
CENTRE = (9, 11, 8)


def trackers(truth):
    study, predictor, cache = open_study(scan(truth)), FakePredictor(), EmbeddingCache(1 << 24)
    return [
        Tracker(predictor, study.frames(a, study.window("auto")), cache, EngineOptions(zoom_rounds=0)) for a in AXES
    ]


def passes(boxes):
    main, across = trackers(ball(centre_ijk=CENTRE))
    return run_passes(main, across, {"ball": boxes}, axes=AXES, rng=np.random.default_rng(0))["ball"]


BOXES = {n: np.array([5, 7, 13, 15], np.float32) for n in (6, 8, 10)}


def test_all_passes_find_the_same_ball():
    found = passes(BOXES)
    assert set(found) == {"forward", "backward", "jittered", "mirrored", "across"}
    truth = ball(centre_ijk=CENTRE)
    for name, one in found.items():
        mask = one.mask(truth.shape)
        assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.8, name


def test_a_volume_of_one_axis_has_four_passes():
    main, _ = trackers(ball(centre_ijk=CENTRE))
    found = run_passes(main, None, {"ball": BOXES}, axes=AXES, rng=np.random.default_rng(0))
    assert "across" not in found["ball"] and len(found["ball"]) == 4


def test_the_jitter_follows_from_the_generator():
    first, second = passes(BOXES)["jittered"], passes(BOXES)["jittered"]
    assert np.array_equal(first.track.prompts[0].box_xyxy, second.track.prompts[0].box_xyxy)
    assert not np.array_equal(first.track.prompts[0].box_xyxy, BOXES[6])


def test_object_scores_leave_out_what_was_prompted():
    found = passes(BOXES)
    reached = sum(not a.prompted for v in found.values() for a in v.track.answers.values())
    assert len(object_scores(found)) == reached > 0


def test_mirrored_slices_have_a_name_of_their_own():
    frames = trackers(ball(centre_ijk=CENTRE))[0].frames
    assert mirrored(frames).key != frames.key
    assert np.array_equal(mirrored(frames).read(8), frames.read(8)[:, ::-1])


def test_the_region_holds_all_masks():
    one, two = np.zeros((9, 9, 9), bool), np.zeros((9, 9, 9), bool)
    one[2, 3, 4] = two[6, 6, 6] = True
    assert region([one, two]) == (slice(2, 7), slice(3, 7), slice(4, 7))
    assert region([np.zeros((2, 2, 2), bool)]) == (slice(None),) * 3
