"""What volumes look like, and the cache of it."""

import json

import numpy as np
import pytest
from builders import ball, scan, stored_as

from slicecast.errors import Cancelled
from slicecast.inference.predictors import QueuedPredictor
from slicecast.inference.queue import DeviceQueue
from slicecast.inference.studies import open_study
from slicecast.labelling.embeddings import CachedVolume, VolumeCache, embed
from slicecast_lab.simulation.fake import FakePredictor

MODEL = QueuedPredictor(FakePredictor(), DeviceQueue())


def test_looks_do_not_depend_on_how_the_file_is_stored():
    volume = scan(ball(centre_ijk=(9, 8, 7)))
    turned = stored_as(volume, (2, 0, 1), (True, False, True))
    assert embed(MODEL, open_study(volume)) == pytest.approx(embed(MODEL, open_study(turned)))


def test_it_ends_when_it_is_told_to():
    with pytest.raises(Cancelled):
        embed(MODEL, open_study(scan(ball())), cancelled=lambda: True)


def test_it_is_found_again_by_file_and_content_for_the_same_model_only(tmp_path):
    known = CachedVolume("abc", "", np.array([0.5, -2.0], np.float32))
    cache = VolumeCache(tmp_path, "model 1")
    cache.keep(("file", 1, 2), known)
    cache.close()
    again = VolumeCache(tmp_path, "model 1")
    found = again.load("abc")
    assert again.content_of(("file", 1, 2)) == "abc" and again.content_of(("file", 1, 3)) is None
    assert found.to_bytes() == known.to_bytes() and found.embedding.dtype == np.float32
    assert VolumeCache(tmp_path, "model 2").load("abc") is None


def test_what_earlier_versions_cached_is_still_read():
    old = {"content": "abc", "flaw": "", "scores": {"cycle": 0.1}, "by_structure": {}, "support": "s", "round": 3}
    found = CachedVolume.of_bytes(json.dumps({**old, "embedding": [1.0]}).encode())
    assert (found.content, found.flaw, found.embedding.tolist()) == ("abc", "", [1.0])
