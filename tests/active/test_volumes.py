"""Laws that every volume strategy keeps, and what each of them is for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slicecast.active.volumes import STRATEGIES, VolumeFeatures, flaw_of, rank
from slicecast.errors import ConfigError

EVERY = tuple(STRATEGIES)


def volumes(count, *, seed=0, dimensions=8, prefix="case"):
    """Volumes in a few groups."""
    rng = np.random.default_rng(seed)
    middles = rng.normal(size=(4, dimensions)) * 5
    found = []
    for n in range(count):
        looks = (middles[n % 4] + rng.normal(size=dimensions)).astype(np.float32)
        found.append(VolumeFeatures(f"{prefix}{n:03d}", looks))
    return found


def ranked(strategy, candidates, labelled=(), *, seed=1):
    return rank(strategy, candidates, labelled, rng=np.random.default_rng(seed))


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(EVERY), st.integers(0, 24), st.integers(0, 7), st.integers(0, 99))
def test_every_candidate_is_ranked_once_with_a_reason(strategy, count, labels, seed):
    candidates, done = volumes(count, seed=seed), volumes(labels, seed=seed + 1, prefix="done")
    order = ranked(strategy, candidates, done, seed=seed)
    assert sorted(c.name for c in order) == sorted(v.name for v in candidates)
    assert all(c.reason for c in order)


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(EVERY), st.integers(0, 99), st.randoms(use_true_random=False))
def test_the_order_follows_from_the_seed_and_not_from_the_order_given(strategy, seed, chance):
    candidates, done = volumes(20, seed=seed), volumes(6, seed=seed + 1, prefix="done")
    shuffled = list(candidates)
    chance.shuffle(shuffled)
    assert ranked(strategy, candidates, done) == ranked(strategy, shuffled, done)


def test_strata_are_served_in_proportion():
    order = ranked("strat_random", volumes(40, seed=3))
    groups = [int(c.name[-3:]) % 4 for c in order[:8]]
    assert sorted(groups.count(g) for g in range(4)) == [2, 2, 2, 2]


def test_coverage_takes_one_of_each_group_first_and_then_the_farthest():
    candidates = volumes(40, seed=3)
    assert {int(c.name[-3:]) % 4 for c in ranked("coverage", candidates)[:5]} == {0, 1, 2, 3}
    one_group = [VolumeFeatures(f"d{n}", candidates[4 * n].embedding) for n in range(5)]
    rest = [v for v in candidates if int(v.name[-3:]) % 4 == 0][5:] + [
        v for v in candidates if int(v.name[-3:]) % 4 == 2
    ]
    assert int(ranked("coverage", rest, one_group)[0].name[-3:]) % 4 == 2


@pytest.mark.parametrize("strategy", [name for name in EVERY if name != "random"])
def test_damaged_empty_and_copied_volumes_come_last(strategy):
    fine, done = volumes(30, seed=5), volumes(6, seed=6, prefix="done")
    bad = [
        VolumeFeatures("a-constant", fine[0].embedding * 0, flaw="its grey values are constant"),
        VolumeFeatures("a-copy", done[0].embedding + 1e-3),
        VolumeFeatures("a-nan", np.full(8, np.nan, np.float32)),
        VolumeFeatures("a-noise", np.full(8, 500.0, np.float32)),
    ]
    order = ranked(strategy, [*bad, *fine], done)
    last = {c.name: c.reason for c in order[-6:]}
    # Two of the fine ones may be alike by chance.
    assert set(last) >= {v.name for v in bad}
    assert not any(c.reason.startswith("comes last") for c in order[:-6])
    assert "near-duplicate of 'done000'" in last["a-copy"] and "deviations" in last["a-noise"]


def test_of_two_copies_one_stays_in_the_running():
    looks = volumes(12, seed=2)
    copy = VolumeFeatures("zcopy", looks[3].embedding, content="x")
    original = VolumeFeatures("acopy", looks[3].embedding, content="x")
    order = ranked("coverage", [copy, original, *(v for n, v in enumerate(looks) if n != 3)])
    assert order[-1].name == "zcopy" and "the same voxels as 'acopy'" in order[-1].reason


def test_half_near_duplicates_do_not_fill_the_first_places():
    rng = np.random.default_rng(0)
    distinct = volumes(20, seed=4)
    copies = [
        VolumeFeatures(f"copy{n:02d}", distinct[0].embedding + rng.normal(size=8).astype(np.float32) * 0.01)
        for n in range(20)
    ]
    order = ranked("coverage", [*distinct, *copies])
    assert sum(c.name.startswith("copy") for c in order[:20]) <= 1


@pytest.mark.parametrize("name", ["power_random", "auto", "disagree", "", "entropy"])
def test_unknown_names_are_refused(name):
    with pytest.raises(ConfigError, match="There is no strategy"):
        ranked(name, volumes(3))


def test_a_name_given_twice_is_refused():
    with pytest.raises(ConfigError, match="same name"):
        ranked("random", volumes(2), volumes(2))


GRID = np.indices((12, 20, 24)).sum(axis=0).astype(np.float32)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((8, 8, 8), np.int16), "constant"),
        (np.where(GRID > 40, np.nan, GRID), "no numbers"),
        (np.random.default_rng(0).normal(size=(12, 20, 24)), "neighbouring voxels are unrelated"),
    ],
)
def test_what_is_wrong_is_said(array, said):
    assert said in flaw_of(array)


def test_a_scan_with_noise_is_fine():
    noisy = GRID + np.random.default_rng(0).normal(size=GRID.shape) * GRID.std()
    assert flaw_of(noisy) == "" and flaw_of(GRID.astype(np.int16)) == ""
