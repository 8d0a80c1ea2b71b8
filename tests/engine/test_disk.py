import numpy as np
import pytest
from tracking import WHOLE, clip_of, tracker_of, walking_disk

from slicecast.engine.disk import DiskTier
from slicecast.engine.embeddings import EmbeddingCache
from slicecast.engine.fake import FakePredictor

CLIP = clip_of(walking_disk(6))
PLACES = [(n, WHOLE) for n in range(6)]


@pytest.fixture
def tier(tmp_path):
    """Keeps what the fake predictor encodes: the grey of each cell."""
    template = FakePredictor().encode(np.zeros((1, 128, 128), np.float32))[0]

    def unpack(data):
        return type(template)(np.frombuffer(data, np.float32).reshape(template.grey.shape))

    made = DiskTier(tmp_path / "embeddings", 1 << 24, pack=lambda e: e.grey.tobytes(), unpack=unpack)
    yield made
    made.close()


def cache_on(tier):
    cache = EmbeddingCache(1 << 24)
    cache.tier = tier
    return cache


def test_a_restart_finds_what_was_encoded(tier):
    first = tracker_of(CLIP, cache=cache_on(tier))
    wanted = first.embed(PLACES[:4])
    second = tracker_of(CLIP, cache=cache_on(tier))
    found = second.embed(PLACES)
    assert first.encoded == 4 and second.encoded == 2 and second.cache.stats().from_disk == 4
    assert all((a.grey == b.grey).all() for a, b in zip(wanted, found[:4], strict=True))
    second.embed(PLACES)
    assert second.cache.stats().from_disk == 4


def test_another_model_finds_nothing(tier):
    tracker_of(CLIP, cache=cache_on(tier)).embed(PLACES)
    other = tracker_of(CLIP, cache=cache_on(tier), predictor=FakePredictor(image_size=64))
    other.embed(PLACES)
    assert other.encoded == 6
