"""An annotated slice of one volume finds the object in another, with a predictor without weights."""

import numpy as np
import pytest
from builders import ball, scan

from slicecast.engine.caches import EmbeddingCache
from slicecast.engine.options import EngineOptions
from slicecast.engine.tracks import Tracker
from slicecast.inference.predictors import QueuedPredictor
from slicecast.inference.queue import DeviceQueue
from slicecast.inference.studies import open_study
from slicecast.volume import SliceAxis
from slicecast.volume.slices import box_of
from slicecast_lab.simulation.fake import FakePredictor
from slicecast_lab.simulation.support import MOST_TIMES, Support, extent_of, match_support, read_support

EXTENT = np.array([[0.0, 0.0, 0.0], [23.0, 19.0, 15.0]])


def tracker(truth, *, zoom=False):
    study = open_study(scan(truth))
    frames = study.frames(SliceAxis.AXIAL, study.window("auto"))
    return Tracker(FakePredictor(zoom=zoom), frames, EmbeddingCache(1 << 24), EngineOptions())


def slices(truth, slices=(6, 8), *, zoom=False):
    return read_support(tracker(truth, zoom=zoom), [(n, truth[n]) for n in slices], EXTENT, margin=2.0)


@pytest.mark.parametrize("zoom", [False, True])
def test_the_object_is_found_at_the_same_place(zoom):
    here, there = ball(), ball(centre_ijk=(13, 10, 8))
    found = match_support(tracker(there, zoom=zoom), slices(here, zoom=zoom), EXTENT)
    assert [r.slice for r in found] == [6, 8]
    for r in found:
        assert r.likely and r.mask.any()
        overlap = 2 * (r.mask & there[r.slice]).sum() / (r.mask.sum() + there[r.slice].sum())
        assert overlap > 0.7
        assert np.array_equal(r.box_xyxy, box_of(r.mask))


def test_where_nothing_is_found_the_box_lies_where_the_page_has_it():
    found = match_support(tracker(np.zeros((16, 20, 24), bool)), slices(ball()), EXTENT)
    for r, support in zip(found, slices(ball()), strict=True):
        assert not r.likely
        assert r.box_xyxy == pytest.approx(box_of(support.mask), abs=1.0)


def test_places_are_shares_of_the_body():
    half = np.array([[0.0, 0.0, 0.0], [11.5, 9.5, 7.5]])
    found = match_support(tracker(np.zeros((16, 20, 24), bool)), slices(ball()), half)
    assert [r.slice for r in found] == [3, 4]


def test_a_mask_of_another_size_is_not_likely():
    small = ball(radius=1.0)
    found = match_support(tracker(ball(radius=8.0)), slices(small, (8,)), EXTENT)[0]
    assert found.mask.sum() > MOST_TIMES * small[8].sum() and not found.likely


def test_a_label_leads_to_boxes_in_another_scan():
    model, study = QueuedPredictor(FakePredictor(), DeviceQueue()), open_study(scan(ball()))
    boxes = Support.learn(model, study, ball()).prompt(model, open_study(scan(ball(centre_ijk=(13, 10, 8)), seed=3)))
    assert len(boxes) == 3 and all(box.shape == (4,) for box in boxes.values())
    assert Support.learn(model, study, np.zeros_like(ball())).prompt(model, study) == {}


def test_the_body_s_extent_is_in_the_order_of_the_slices():
    study = open_study(scan(ball(centre_ijk=(8, 10, 8), radius=4.0), noise=0.0))
    assert extent_of(study, SliceAxis.AXIAL).tolist() == [[4, 6, 4], [12, 14, 12]]
    assert extent_of(study, SliceAxis.SAGITTAL).tolist() == [[6, 4, 4], [14, 12, 12]]
