"""Augmentation passes of one volume lie in one grid, whichever way they propagated."""

import numpy as np
from builders import ball, scan

from slicecast.engine.caches import EmbeddingCache
from slicecast.engine.fake import FakePredictor
from slicecast.engine.options import EngineOptions
from slicecast.engine.tracks import Tracker
from slicecast.inference.studies import open_study
from slicecast.labelling.scoring.passes import mirrored, object_scores, region, run_passes
from slicecast.volume import SliceAxis

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
