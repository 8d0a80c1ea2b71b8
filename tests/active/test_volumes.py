"""Laws that every volume strategy keeps, and what each of them is for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slicecast.active.volumes import SCORES, STRATEGIES, VolumeFeatures, mean_rank, needs_scores, rank
from slicecast.errors import ConfigError

EVERY = tuple(STRATEGIES)


def volumes(count, *, seed=0, dimensions=8, scored=1.0, prefix="case"):
    """Volumes in a few groups; a share of them has scores."""
    rng = np.random.default_rng(seed)
    middles = rng.normal(size=(4, dimensions)) * 5
    found = []
    for n in range(count):
        looks = (middles[n % 4] + rng.normal(size=dimensions)).astype(np.float32)
        scores = {name: float(rng.random()) for name in SCORES} if rng.random() < scored else {}
        parts = {"left": dict(scores), "right": {k: 1 - v for k, v in scores.items()}} if scores else {}
        found.append(VolumeFeatures(f"{prefix}{n:03d}", looks, scores, parts))
    return found


def ranked(strategy, candidates, labelled=(), *, seed=1, progress=0.0):
    return rank(strategy, candidates, labelled, rng=np.random.default_rng(seed), progress=progress)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(EVERY), st.integers(0, 24), st.integers(0, 7), st.floats(0, 1), st.integers(0, 99))
def test_every_candidate_is_ranked_once_with_a_reason(strategy, count, labels, scored, seed):
    candidates, done = volumes(count, seed=seed, scored=scored), volumes(labels, seed=seed + 1, prefix="done")
    order = ranked(strategy, candidates, done, seed=seed)
    assert sorted(c.name for c in order) == sorted(v.name for v in candidates)
    assert all(c.reason for c in order)


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(EVERY), st.integers(0, 99), st.randoms(use_true_random=False))
def test_the_order_follows_from_the_seed_and_not_from_the_order_given(strategy, seed, chance):
    candidates, done = volumes(20, seed=seed, scored=0.7), volumes(6, seed=seed + 1, prefix="done")
    shuffled = list(candidates)
    chance.shuffle(shuffled)
    assert ranked(strategy, candidates, done) == ranked(strategy, shuffled, done)


def test_auto_is_by_chance_at_first_and_greedy_at_the_end():
    candidates, done = volumes(30), volumes(6, seed=9, prefix="done")
    mean = mean_rank([v.scores for v in candidates])
    greedy = {candidates[n].name for n in np.argsort(-mean)[:15]}
    late = [c.name for c in ranked("auto", candidates, done, progress=1.0) if "chance" not in c.reason[:30]]
    firsts = {ranked("auto", candidates, done, seed=seed)[0].name for seed in range(20)}
    assert len(firsts) > 5
    assert len(greedy & set(late[:8])) >= 4


def test_auto_gives_most_places_to_the_structures_in_turn():
    reasons = [c.reason for c in ranked("auto", volumes(60), volumes(6, seed=9, prefix="done"))]
    left, right = sum("'left'" in r for r in reasons[:30]), sum("'right'" in r for r in reasons[:30])
    assert 8 <= left + right <= 28 and abs(left - right) <= 5


def test_a_volume_first_in_every_score_has_mean_rank_one():
    rows = [dict.fromkeys(SCORES, value) for value in (0.1, 0.9, 0.5)]
    assert mean_rank([*rows, {}]) == pytest.approx([1 / 3, 1.0, 2 / 3, 0.0])


def test_without_scores_auto_is_random_within_strata_and_says_so():
    order = ranked("auto", volumes(20, scored=0.0), volumes(6, seed=9, prefix="done"))
    assert all("no volume has scores yet: random within stratum" in c.reason for c in order if "last" not in c.reason)


def test_volumes_without_scores_come_after_those_with_them_or_by_chance():
    candidates = volumes(20, scored=0.5)
    order = ranked("auto", candidates, volumes(6, seed=9, prefix="done"))
    by_score = [c.name for c in order if "mean rank" in c.reason]
    later = [c.name for c in order if "no scores yet" in c.reason]
    has = {v.name for v in candidates if v.scores}
    assert set(by_score) <= has and later and not set(later) & has


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


def test_auto_covers_first_then_scores_and_leaves_a_fifth_to_chance():
    candidates, done = volumes(100), volumes(5, seed=9, prefix="done")
    reasons = [c.reason for c in ranked("auto", candidates, done[:4])]
    assert all(r.startswith(("4 labels so far: ", "comes last")) for r in reasons) and reasons[0].startswith("4")
    reasons = [c.reason for c in ranked("auto", candidates, done)]
    chance = sum("left to chance" in r for r in reasons)
    assert 10 <= chance <= 32
    assert any("mean rank" in r for r in reasons)


@pytest.mark.parametrize("strategy", [name for name in EVERY if name != "random"])
def test_damaged_empty_and_copied_volumes_come_last(strategy):
    fine, done = volumes(30, seed=5), volumes(6, seed=6, prefix="done")
    high = {name: 1.0 for name in SCORES}
    bad = [
        VolumeFeatures("a-constant", fine[0].embedding * 0, high, flaw="its grey values are constant"),
        VolumeFeatures("a-copy", done[0].embedding + 1e-3, high),
        VolumeFeatures("a-nan", np.full(8, np.nan, np.float32), high),
        VolumeFeatures("a-noise", np.full(8, 500.0, np.float32), high),
    ]
    order = ranked(strategy, [*bad, *fine], done)
    last = {c.name: c.reason for c in order[-6:]}
    # Two of the fine ones may be alike by chance.
    assert set(last) >= {v.name for v in bad}
    assert not any(c.reason.startswith("comes last") for c in order[:-6])
    assert "near-duplicate of 'done000'" in last["a-copy"] and "deviations" in last["a-noise"]


def test_of_two_copies_one_stays_in_the_running():
    looks = volumes(12, seed=2)
    copy = VolumeFeatures("zcopy", looks[3].embedding, looks[3].scores, content="x")
    original = VolumeFeatures("acopy", looks[3].embedding, looks[3].scores, content="x")
    order = ranked("coverage", [copy, original, *(v for n, v in enumerate(looks) if n != 3)])
    assert order[-1].name == "zcopy" and "the same voxels as 'acopy'" in order[-1].reason


def test_half_near_duplicates_do_not_fill_the_first_places():
    rng = np.random.default_rng(0)
    distinct = volumes(20, seed=4)
    copies = [
        VolumeFeatures(
            f"copy{n:02d}", distinct[0].embedding + rng.normal(size=8).astype(np.float32) * 0.01, {"disagree": 0.99}
        )
        for n in range(20)
    ]
    order = ranked("coverage", [*distinct, *copies])
    assert sum(c.name.startswith("copy") for c in order[:20]) <= 1


@pytest.mark.parametrize("name", ["power_random", "auto_per_cost", "disagree", "", "entropy"])
def test_unknown_names_are_refused(name):
    with pytest.raises(ConfigError, match="There is no strategy"):
        ranked(name, volumes(3))


def test_a_name_given_twice_is_refused():
    with pytest.raises(ConfigError, match="same name"):
        ranked("random", volumes(2), volumes(2))


def test_what_a_strategy_needs():
    assert [name for name in EVERY if needs_scores(name)] == ["auto"] and not needs_scores("auto", 4)
