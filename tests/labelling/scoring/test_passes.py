"""Five views of one volume: they lie in one grid, whichever way they were walked."""

import numpy as np
from builders import ball, scan

from slicecast.engine.embeddings import EmbeddingCache
from slicecast.engine.fake import FakePredictor
from slicecast.engine.options import EngineOptions
from slicecast.engine.tracker import Tracker
from slicecast.inference.studies import open_study
from slicecast.labelling.scoring.passes import look_from_all_sides, mirrored, object_scores, region
from slicecast.volume import SliceAxis

AXES = (SliceAxis.AXIAL, SliceAxis.CORONAL)
CENTRE = (9, 11, 8)


def trackers(truth):
    study, predictor, cache = open_study(scan(truth)), FakePredictor(), EmbeddingCache(1 << 24)
    return [
        Tracker(predictor, study.frames(a, study.window("auto")), cache, EngineOptions(zoom_rounds=0)) for a in AXES
    ]


def views(boxes):
    main, across = trackers(ball(centre_ijk=CENTRE))
    return look_from_all_sides(main, across, {"ball": boxes}, axes=AXES, rng=np.random.default_rng(0))["ball"]


BOXES = {n: np.array([5, 7, 13, 15], np.float32) for n in (6, 8, 10)}


def test_all_views_find_the_same_ball():
    found = views(BOXES)
    assert set(found) == {"forward", "backward", "jittered", "mirrored", "across"}
    truth = ball(centre_ijk=CENTRE)
    for name, view in found.items():
        mask = view.mask(truth.shape)
        assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.8, name
        assert view.probability(truth.shape)[truth].mean() > 0.7, name


def test_a_volume_of_one_axis_has_four_views():
    main, _ = trackers(ball(centre_ijk=CENTRE))
    found = look_from_all_sides(main, None, {"ball": BOXES}, axes=AXES, rng=np.random.default_rng(0))
    assert "across" not in found["ball"] and len(found["ball"]) == 4


def test_the_jitter_follows_from_the_generator():
    first, second = views(BOXES)["jittered"], views(BOXES)["jittered"]
    assert np.array_equal(first.track.prompts[0].box_xyxy, second.track.prompts[0].box_xyxy)
    assert not np.array_equal(first.track.prompts[0].box_xyxy, BOXES[6])


def test_object_scores_leave_out_what_was_prompted():
    found = views(BOXES)
    walked = sum(not a.prompted for v in found.values() for a in v.track.answers.values())
    assert len(object_scores(found)) == walked > 0


def test_mirrored_slices_have_a_name_of_their_own():
    frames = trackers(ball(centre_ijk=CENTRE))[0].frames
    assert mirrored(frames).key != frames.key
    assert np.array_equal(mirrored(frames).read(8), frames.read(8)[:, ::-1])


def test_the_region_holds_all_masks():
    one, two = np.zeros((9, 9, 9), bool), np.zeros((9, 9, 9), bool)
    one[2, 3, 4] = two[6, 6, 6] = True
    assert region([one, two], margin=1) == (slice(1, 8), slice(2, 8), slice(3, 8))
    assert region([np.zeros((2, 2, 2), bool)], margin=1) == (slice(None),) * 3
