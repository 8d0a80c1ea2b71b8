import threading
from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from slicecast.engine.embeddings import EmbeddingCache


@dataclass(frozen=True)
class Stored:
    key: object
    nbytes: int = 10


def ask(cache, keys, nbytes=10):
    """Ask for keys; return the values and which keys had to be encoded."""
    asked = []

    def encode(missing):
        asked.extend(keys[n] for n in missing)
        return [Stored(keys[n], nbytes) for n in missing]

    return cache.get_many(keys, encode), asked


def test_only_what_is_missing_is_encoded():
    cache = EmbeddingCache(1000)
    assert ask(cache, ["a", "b"])[1] == ["a", "b"]
    values, asked = ask(cache, ["b", "c", "a"])
    assert [v.key for v in values] == ["b", "c", "a"] and asked == ["c"]
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.evictions, stats.entries, stats.nbytes) == (2, 3, 0, 3, 30)


def test_a_key_asked_for_twice_at_once_is_encoded_once():
    cache = EmbeddingCache(1000)
    values, asked = ask(cache, ["a", "b", "a"])
    assert sorted(asked) == ["a", "b"] and values[0] is values[2]
    assert cache.stats().nbytes == 20 and cache.stats().misses == 2


def test_the_least_recently_used_goes_first():
    cache = EmbeddingCache(30)
    ask(cache, ["a", "b", "c"])
    ask(cache, ["a"])
    ask(cache, ["d"])
    assert [key in cache for key in "abcd"] == [True, False, True, True]


def test_one_entry_beyond_the_budget_is_still_kept():
    cache = EmbeddingCache(5)
    ask(cache, ["a"])
    assert "a" in cache
    ask(cache, ["b"])
    assert "a" not in cache and "b" in cache


def test_clear_forgets_everything_but_the_counters():
    cache = EmbeddingCache(100)
    ask(cache, ["a"])
    cache.clear()
    assert "a" not in cache and cache.stats().nbytes == 0 and cache.stats().misses == 1


@given(st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=8), max_size=20), st.integers(1, 12))
def test_callers_get_what_they_ask_for_within_the_budget(batches, room):
    cache = EmbeddingCache(room * 10)
    for keys in batches:
        values, _ = ask(cache, keys)
        assert [v.key for v in values] == keys
        stats = cache.stats()
        assert stats.nbytes == 10 * stats.entries <= room * 10
    assert cache.stats().entries + cache.stats().evictions == cache.stats().misses


def test_threads_share_it_without_mixing_keys():
    cache = EmbeddingCache(200)
    wrong = []

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(200):
            keys = rng.integers(0, 40, size=5).tolist()
            wrong.extend(v.key for v, key in zip(ask(cache, keys)[0], keys, strict=True) if v.key != key)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = cache.stats()
    assert wrong == [] and stats.nbytes == 10 * stats.entries <= 200
