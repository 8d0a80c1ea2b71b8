"""Experiments E1 and E3: which volume next.

Every strategy starts without labels and is asked again at each budget; its choice is paid with the truth (E1) or with a
robot's session (E3). All pairs (labelled volume, test volume) are segmented once, so campaigns are look-ups.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicecast.active.volumes import VolumeFeatures, rank
from slicecast.errors import ConfigError
from slicecast_lab.evaluation.cases import CaseFiles
from slicecast_lab.simulation.annotator import generator
from slicecast_lab.simulation.learner import EmbedTask, Labelling, SupportTask
from slicecast_lab.simulation.strategies import ORACLE, check_volumes
from slicecast_lab.simulation.work import SimulationTask

DEFAULTS = ("random", "strat_random", "coverage", ORACLE)

Work = Callable[[Sequence[SimulationTask]], list[Any]]  # Carries out tasks; see `work.carry_out`


@dataclass(frozen=True, slots=True)
class VolumePlan:
    """What is simulated; raises ConfigError if an unknown strategy, or a value out of range."""

    strategies: tuple[str, ...] = DEFAULTS  # names of volume strategies, and ORACLE
    # numbers of labelled volumes, ascending; at each the model is measured
    budgets: tuple[int, ...] = (0, 1, 2, 3, 5, 8, 12, 20)
    seeds: int = 10  # campaigns of each strategy
    labelling: Labelling = field(default_factory=Labelling)  # how labels come about

    def __post_init__(self) -> None:
        for name in self.strategies:
            check_volumes(name)
        if not self.strategies or len(set(self.strategies)) != len(self.strategies):
            raise ConfigError("Name each strategy once, and at least one.")
        if any(b <= a for a, b in pairwise(self.budgets)) or not self.budgets or self.budgets[0] < 0:
            raise ConfigError(f"The budgets {self.budgets} must ascend from 0 or more, such as 0,1,2,3,5,8.")
        if self.budgets[-1] == 0 or self.seeds < 1:
            raise ConfigError("Give a budget above 0, and at least one seed.")

    def check(self, volumes: int) -> None:
        """Raise ConfigError where a pool of so many volumes does not hold the budget."""
        if self.budgets[-1] > volumes:
            raise ConfigError(
                f"The pool has {volumes} volumes, fewer than the budget {self.budgets[-1]}. Give smaller --budgets."
            )


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """The volumes, and what the model makes of each of them."""

    cases: Sequence[CaseFiles]  # that may be labelled
    points: NDArray[np.float64]  # (N, D) what they look like
    table: NDArray[np.float64]  # (N, Q) Dice of each query from each label
    nearness: NDArray[np.float64]  # (N, Q) distance of each query from each pool volume
    actions: Sequence[Sequence[int]]  # that labelling each took: looks, clicks, boxes, masks
    label_dice: Sequence[float]  # (N,) how good the labels are

    def quality(self, labelled: Sequence[int]) -> NDArray[np.float64]:
        """Return the Dice of each query from the labelled volume nearest to it, (Q,); 0 without labels."""
        if not labelled:
            return np.zeros(self.table.shape[1])
        chosen = np.asarray(labelled)[self.nearness[list(labelled)].argmin(axis=0)]
        return self.table[chosen, np.arange(self.table.shape[1])]


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedCampaign:
    """One strategy with one seed: the volumes in the order labelled."""

    strategy: str
    seed: int
    labelled: tuple[int, ...] = ()


def learn(cases: Sequence[CaseFiles], queries: Sequence[CaseFiles], labelling: Labelling, work: Work) -> Pool:
    """Look at every volume and segment every query from every label."""
    vectors = np.array(work([EmbedTask(files) for files in (*cases, *queries)]), dtype=float)
    points, wanted = vectors[: len(cases)], vectors[len(cases) :]
    answers = work([SupportTask(files, tuple(queries), labelling) for files in cases])
    return Pool(
        cases=cases,
        points=points,
        table=np.array([answer["query_dice"] for answer in answers], dtype=float),
        nearness=np.linalg.norm(points[:, None] - wanted[None], axis=-1),
        actions=[answer["actions"] for answer in answers],
        label_dice=[answer["label_dice"] for answer in answers],
    )


def run_campaigns(pool: Pool, plan: VolumePlan) -> list[SimulatedCampaign]:
    """Run all strategies with all seeds.

    Raises:
        ConfigError: the pool is smaller than the largest budget.
    """
    plan.check(len(pool.cases))
    running = [SimulatedCampaign(name, seed) for name in plan.strategies for seed in range(plan.seeds)]
    for budget in plan.budgets:
        running = [_advance(pool, campaign, budget) for campaign in running]
    return running


def _advance(pool: Pool, campaign: SimulatedCampaign, budget: int) -> SimulatedCampaign:
    """Label volumes up to the budget."""
    wanted = budget - len(campaign.labelled)
    if wanted == 0:
        return campaign
    if campaign.strategy == ORACLE:
        return SimulatedCampaign(ORACLE, campaign.seed, _look_ahead(pool, campaign.labelled, wanted))
    left = [n for n in range(len(pool.cases)) if n not in campaign.labelled]
    candidates, known = ([_features(pool, n) for n in numbers] for numbers in (left, campaign.labelled))
    rng = generator("campaign", campaign.seed, len(campaign.labelled))
    number = {pool.cases[n].id: n for n in left}
    order = rank(campaign.strategy, candidates, known, rng=rng)
    chosen = tuple(number[choice.name] for choice in order[:wanted])
    return SimulatedCampaign(campaign.strategy, campaign.seed, (*campaign.labelled, *chosen))


def _look_ahead(pool: Pool, labelled: Sequence[int], wanted: int) -> tuple[int, ...]:
    chosen = tuple(labelled)
    for _ in range(wanted):
        left = [n for n in range(len(pool.cases)) if n not in chosen]
        gains = [pool.quality([*chosen, n]).mean() for n in left]
        chosen = (*chosen, left[int(np.argmax(gains))])
    return chosen


def _features(pool: Pool, number: int) -> VolumeFeatures:
    return VolumeFeatures(pool.cases[number].id, pool.points[number].astype(np.float32))
