"""What is made of a volume without a label, with a predictor without weights."""

import numpy as np
import pytest
from builders import ball, scan, stored_as

from slicecast.engine.fake import FakePredictor
from slicecast.errors import Cancelled
from slicecast.inference.predictors import QueuedPredictor
from slicecast.inference.queue import DeviceQueue
from slicecast.inference.studies import open_study
from slicecast.labelling.scoring.volume_scores import MAX_STRUCTURES, CachedScores, ScoreStore, VolumeScorer, extent_of
from slicecast.volume import SliceAxis
from slicecast.volume.metrics import dice

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
