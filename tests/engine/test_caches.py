import threading
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tracking import (
    PLAIN,
    absent,
    boxed,
    clicked,
    clip_of,
    disk,
    painted,
    same_answers,
    tracker_of,
    walking_disk,
)

from slicecast.engine.caches import EmbeddingCache, ResultCache, key_of, prompt_key
from slicecast.engine.ports import ModelPrompt, Observation
from slicecast.engine.propagation import segment
from slicecast_lab.simulation.fake import FakePredictor

COUNT = 14
TRUTH = walking_disk(COUNT, step_px=0.7)
OTHER = np.stack([disk(centre_xy=(32, 50), radius=6) & (2 <= n < 11) for n in range(COUNT)])
CLIP = clip_of(TRUTH | OTHER)
FULL = replace(PLAIN, keep_components=True, fill_holes_px=16)
ZOOM = replace(FULL, zoom="on")


def observation(number):
    return Observation(np.full((2, 2), number, np.float32), 0.5, 1.0, memory=np.zeros(1))


def ask_for(kept, *keys):
    """Ask for keys; return the values and the keys that were not known."""
    asked = []

    def ask(missing):
        asked.extend(keys[n] for n in missing)
        return [observation(keys[n]) for n in missing]

    return [int(known.observation.logits[0, 0]) for known in kept.answers(keys, ask)], asked


def test_what_is_known_is_not_asked_again():
    kept = ResultCache(1 << 20)
    assert ask_for(kept, 1, 2, 1) == ([1, 2, 1], [1, 2])
    assert ask_for(kept, 3, 2) == ([3, 2], [3])
    assert kept.stats().entries == 3


def test_a_small_budget_forgets_but_answers():
    kept = ResultCache(300)
    assert ask_for(kept, 1, 2, 3)[0] == [1, 2, 3]
    assert kept.stats().entries == 1 and ask_for(kept, 1)[1] == [1]


def test_a_fact_is_worked_out_once():
    kept, told = ResultCache(1 << 20), []
    assert [kept.fact("a", lambda: told.append(1) or None) for _ in range(3)] == [None] * 3 and told == [1]


def test_names_differ_where_values_do():
    box = np.array([1, 2, 3, 4], np.float32)
    none, one = np.zeros((0, 2), np.float32), np.ones((1, 2), np.float32)
    prompts = [
        ModelPrompt(none, np.zeros(0, np.int32), box),
        ModelPrompt(one, np.ones(1, np.int32)),
        ModelPrompt(one, np.zeros(1, np.int32)),
        ModelPrompt(none, np.zeros(0, np.int32), mask=np.eye(4, dtype=bool)),
        ModelPrompt(none, np.zeros(0, np.int32), mask=np.eye(4, dtype=bool)[::-1]),
    ]
    assert len({prompt_key(p) for p in prompts}) == 5
    assert prompt_key(prompts[0]) == prompt_key(replace(prompts[0], box_xyxy=box.copy()))
    assert key_of(1, "a") != key_of("1", "a") and key_of(1, "a") == key_of(1, "a")


def prompt_on(draw, number, order):
    """Draw one prompt for a slice."""
    inside = TRUTH[number].any()
    x = 26 + 0.7 * number
    kinds = ["absent", "negative", *(["click", "paint", "box"] if inside else [])]
    match draw(st.sampled_from(kinds)):
        case "absent":
            return absent(number)
        case "negative":
            return clicked(number, negative=[(x + 9, 30)])
        case "click":
            return clicked(number, (x + draw(st.integers(-4, 4)), 32), order=order)
        case "paint":
            return painted(number, TRUTH[number])
        case _:
            return boxed(number, x - 10, 22, x + 10, 42)


@st.composite
def edits(draw):
    """Draw a sequence of states of one or two objects' prompts, each one edit away from the last."""
    said = {"a": {5: clicked(5, (29.5, 32), order=0)}, "b": {}}
    states = []
    for order in range(1, draw(st.integers(2, 5))):
        name = draw(st.sampled_from("aab"))
        number = draw(st.integers(0, COUNT - 1))
        if number in said[name] and number != 5:
            del said[name][number]
        elif number != 5 or name == "b":
            said[name][number] = prompt_on(draw, number, order)
        states.append({n: sorted(p.values(), key=lambda q: q.slice) for n, p in said.items() if can_start(p.values())})
    return states


def can_start(prompts):
    return any(p.starts for p in prompts)


def same(first, second, *, atol):
    return (
        first.labels.keys() == second.labels.keys()
        and all((first.labels[n] == second.labels[n]).all() for n in first.labels)
        and all(same_answers(first.objects[n].answers, second.objects[n].answers, atol=atol) for n in first.objects)
    )


@pytest.mark.parametrize("options", [FULL, ZOOM, replace(FULL, gone_slices=0)])
@given(states=edits(), budget=st.sampled_from([1 << 26, 20_000]))
@settings(max_examples=12)
def test_the_incremental_result_is_that_of_a_full_run(options, states, budget):
    kept, predictor = ResultCache(budget), FakePredictor(image_size=64)
    for prompts in states:
        after = segment(tracker_of(CLIP, options=options, predictor=predictor, result_cache=kept), prompts)
        full = segment(tracker_of(CLIP, options=options, predictor=predictor), prompts)
        assert same(after, full, atol=0)
        if budget < 1 << 26:  # what was forgotten is asked again
            continue
        assert after.slices_recomputed <= full.slices_recomputed
        assert after.slices_recomputed + after.slices_reused <= full.slices_recomputed + full.slices_reused


def test_the_same_question_costs_nothing_and_encodes_nothing():
    kept, prompts = ResultCache(1 << 26), {"a": [clicked(3, (28, 32)), clicked(9, (32, 32), order=1)]}
    first = segment(tracker_of(CLIP, result_cache=kept), prompts)
    again = segment(tracker_of(CLIP, result_cache=kept), prompts)
    assert first.slices_recomputed > 0 and again.slices_recomputed == again.slices_encoded == 0


def test_a_correction_recomputes_only_the_intervals_beside_it():
    kept = ResultCache(1 << 26)
    painted_slices = [painted(n, TRUTH[n]) for n in (0, 5, 9, 13)]
    segment(tracker_of(CLIP, result_cache=kept), {"a": painted_slices})
    seen = []
    tracker = tracker_of(CLIP, result_cache=kept, on_result=lambda told: seen.append((told.slice, told.reused)))
    segment(tracker, {"a": sorted([*painted_slices, clicked(7, negative=[(40, 32)])], key=lambda p: p.slice)})
    # 6 and 8 are tracked from both sides; the other intervals, and the way to slice 7, are known.
    assert {n for n, reused in seen if not reused} == {6, 7, 8}
    assert tracker.recomputed <= 7


def test_another_volume_model_window_or_prompt_is_another_question():
    kept, prompts = ResultCache(1 << 26), {"a": [clicked(3, (28, 32))]}
    count = segment(tracker_of(CLIP, result_cache=kept), prompts).slices_recomputed
    for other in ({"predictor": FakePredictor(image_size=64)}, {"options": ZOOM}):
        assert segment(tracker_of(CLIP, result_cache=kept, **other), prompts).slices_recomputed >= count - 2
    moved = segment(tracker_of(CLIP, result_cache=kept), {"a": [clicked(3, (29, 32))]})
    assert moved.slices_reused == 0


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


def test_what_is_larger_than_the_budget_is_returned_and_not_kept():
    cache = EmbeddingCache(15)
    assert ask(cache, ["a"])[0][0].key == "a" and "a" in cache
    assert ask(cache, ["b"], nbytes=16)[0][0].key == "b"
    assert "a" in cache and "b" not in cache


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
