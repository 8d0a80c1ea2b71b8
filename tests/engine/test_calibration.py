"""What a mask lacks on its own slice, and who is given it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tracking import PLAIN, clicked, clip_of, painted, tracker_of, walking_disk

from slicecast.engine.calibration import MOST_LOGIT, SPARE_LOGIT, lacking_logit
from slicecast.engine.propagation import segment
from slicecast_lab.simulation.fake import FakePredictor

LOGITS = arrays(np.float32, (6, 6), elements=st.floats(-8, 8, width=32))


@given(LOGITS, arrays(np.bool_, (6, 6)))
def test_what_is_lacking_makes_the_mask_about_as_large_as_painted(logits, mask):
    lacking, area = lacking_logit(logits, mask), np.count_nonzero(mask)
    assert 0 <= lacking <= MOST_LOGIT
    if lacking:
        assert np.count_nonzero(logits > 0) < area  # nothing is given to a mask that is large enough
        assert np.count_nonzero(logits > -lacking) <= area  # and never more than to make it as large
    if lacking and lacking < MOST_LOGIT:
        assert np.count_nonzero(logits + np.float32(lacking + SPARE_LOGIT + 1e-4) > 0) >= area


@pytest.mark.parametrize("mask", [np.zeros((4, 4), dtype=bool), np.ones((4, 4), dtype=bool)])
def test_nothing_is_learnt_from_an_empty_or_a_full_slice(mask):
    assert lacking_logit(np.full((4, 4), -5, dtype=np.float32), mask) == 0


class Timid(FakePredictor):
    """Draws what it tracks too small by two logits, and notes the bias that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[float] = []

    def track(self, jobs, *, num_slices):
        self.heard += [job.bias for job in jobs]
        return [replace(seen, logits=seen.logits - 2) for seen in super().track(jobs, num_slices=num_slices)]


@pytest.mark.parametrize(
    ("prompt", "option", "given"),
    [(painted, True, True), (painted, False, False), (lambda n, mask: clicked(n, (30, 32)), True, False)],
)
def test_tracks_of_painted_slices_are_given_what_their_masks_lack_there(prompt, option, given):
    truth, predictor = walking_disk(), Timid()
    tracker = tracker_of(clip_of(truth), predictor=predictor, options=replace(PLAIN, calibrate=option))
    segment(tracker, {"disk": [prompt(4, truth[4])]})
    own, *tracked = predictor.heard if given else [0.0, *predictor.heard]
    assert own == 0 and len(tracked) == 8
    assert all((0 < bias <= MOST_LOGIT) == given for bias in tracked)
