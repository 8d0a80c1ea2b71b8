"""Campaigns over volumes, on a table of pairs that is known."""

import numpy as np
import pytest

from slicecast.errors import ConfigError
from slicecast_lab.evaluation.cases import CaseFiles
from slicecast_lab.simulation.strategies import ORACLE
from slicecast_lab.simulation.summary import summarise_volumes
from slicecast_lab.simulation.volumes import Pool, VolumePlan, run_campaigns

BUDGETS = (0, 1, 2, 5, 8)


@pytest.fixture
def pool(tmp_path, rng):
    """Twelve volumes in three groups by looks; a label helps queries that look like it."""
    cases = []
    for n in range(12):
        file = tmp_path / f"v{n}"
        file.write_text(str(n))
        cases.append(CaseFiles(f"v{n}", file, file, (), f"v{n}"))
    centres = np.eye(3) * 10
    points = centres[np.arange(12) % 3] + rng.normal(0, 1.5, (12, 3))
    wanted = centres[np.arange(9) % 3] + rng.normal(0, 1.5, (9, 3))
    nearness = np.linalg.norm(points[:, None] - wanted[None], axis=-1)
    table = np.exp(-nearness / 8)
    return Pool(cases, points, table, nearness, [[1, 0, 0, 1]] * 12, [0.9] * 12)


def plan(*strategies, seeds=3):
    return VolumePlan(strategies, BUDGETS, seeds)


def test_every_budget_is_kept_and_no_volume_is_labelled_twice(pool):
    for campaign in run_campaigns(pool, plan("random", "strat_random", "coverage", ORACLE)):
        assert len(campaign.labelled) == len(set(campaign.labelled)) == BUDGETS[-1]


def test_the_same_seed_chooses_the_same(pool):
    first, again = (run_campaigns(pool, plan("random", "coverage")) for _ in range(2))
    assert [c.labelled for c in first] == [c.labelled for c in again]
    assert len({c.labelled for c in first if c.strategy == "random"}) == 3


def test_more_labels_help_and_the_oracle_is_first(pool):
    chosen = plan("random", "strat_random", "coverage", ORACLE, seeds=6)
    said = summarise_volumes(pool, chosen, run_campaigns(pool, chosen), [str(n) for n in range(9)])
    for own in said["strategies"].values():
        values = [mean["value"] for mean in own["dice"]]
        assert values[0] == 0 and values[1] < values[-1] <= said["best_label"]["value"]
    areas = {name: own["aubc"]["value"] for name, own in said["strategies"].items()}
    assert max(areas, key=areas.get) == ORACLE and areas["coverage"] > areas["random"]
    assert said["headroom"]["low"] > 0 and said["strategies"][ORACLE]["captured"] == pytest.approx(1)
    assert said["strategies"]["random"]["captured"] == 0
    assert said["strategies"][ORACLE]["against_reference"]["value"] > 0


@pytest.mark.parametrize(
    ("strategies", "budgets", "said"),
    [
        (("clever",), (1,), "clever"),
        (("random", "random"), (1,), "once"),
        (("random",), (3, 2), "ascend"),
        (("random",), (0,), "above 0"),
    ],
)
def test_impossible_plans_are_refused(strategies, budgets, said):
    with pytest.raises(ConfigError, match=said):
        VolumePlan(strategies, budgets, 1)


def test_a_pool_must_hold_the_budget(pool):
    with pytest.raises(ConfigError, match="12 volumes"):
        run_campaigns(pool, VolumePlan(("random",), (1, 13), 1))
