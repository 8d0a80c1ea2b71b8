"""Which volume next: the strategies by name, and the settings of their use.

`rank(NAME, candidates, labelled, rng=...)` orders the candidates, best first; everything follows from
the arguments. Offered are the strategies that were measured (docs/results/active-learning.md): `random`,
`strat_random` and `coverage`. Formulas: docs/active-learning.md.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.distance import cdist

from slicecast.active.features import (
    Points,
    VolumeChoice,
    VolumeFeatures,
    clusters,
    doubts,
    neighbour_distance,
    to_points,
)
from slicecast.config import build, read_config
from slicecast.errors import ConfigError

__all__ = ["STRATEGIES", "ActiveSettings", "VolumeChoice", "VolumeFeatures", "rank"]

MOST_STRATA = 8

COLD_START = 5
"""Labels below which coverage picks typical volumes; from then on the ones farthest from all that are labelled."""

NEIGHBOURS = 10  # A typical volume is near to so many others
GREEDY = 256  # Volumes ordered one by one; the order is made anew before the ones behind them are reached


@dataclass(frozen=True, slots=True, eq=False)
class _Question:
    """What a strategy is asked."""

    candidates: Sequence[VolumeFeatures]
    labelled: Sequence[VolumeFeatures]
    rng: np.random.Generator


Order = list[VolumeChoice]
Strategy = Callable[[_Question], Order]
Placed = tuple[int, float | None, str]  # A point's number, its score, and the reason for its place


def rank(
    strategy: str,
    candidates: Sequence[VolumeFeatures],
    labelled: Sequence[VolumeFeatures] = (),
    *,
    rng: np.random.Generator,
) -> tuple[VolumeChoice, ...]:
    """Order volumes without a label, the one to be labelled next first; every candidate is in the answer once.

    Damaged and empty volumes, far outliers and copies come last, with any strategy but plain `random`.

    Args:
        strategy: a name in STRATEGIES.
        candidates: without a label.
        labelled: with one.
        rng: source of all chance.

    Raises:
        ConfigError: there is no such strategy, or two volumes have one name.
    """
    if strategy not in STRATEGIES:
        raise ConfigError(f"There is no strategy '{strategy}'. Choose one of {', '.join(STRATEGIES)}.")
    names = [v.name for v in (*candidates, *labelled)]
    if len(set(names)) != len(names):
        raise ConfigError("Two volumes have the same name; give each volume once, labelled or not.")
    ordered = sorted(candidates, key=lambda v: v.name)
    doubted = {} if strategy == "random" else doubts(ordered, labelled)
    fine = [v for v in ordered if v.name not in doubted]
    order = STRATEGIES[strategy](_Question(fine, labelled, rng)) if fine else []
    last = [VolumeChoice(v.name, None, f"comes last: {doubted[v.name]}") for v in ordered if v.name in doubted]
    return (*order, *last)


def _random(question: _Question) -> Order:
    candidates = question.candidates
    reason = f"random among {len(candidates)} without a label"
    return [VolumeChoice(candidates[n].name, None, reason) for n in question.rng.permutation(len(candidates))]


def _stratified(question: _Question) -> Order:
    """Shuffle within groups that look alike, and take from each in proportion to its size.

    Labelled volumes count as taken. Volumes that were not encoded yet follow at random.
    """
    seen, unseen = _encoded(question.candidates), [v for v in question.candidates if v.embedding is None]
    order = _in_proportion(seen, _encoded(question.labelled), rng=question.rng) if seen else []
    rest = _random(replace(question, candidates=unseen))
    return order + [replace(c, reason=f"{c.reason}, not encoded yet") if seen else c for c in rest]


def _coverage(question: _Question) -> Order:
    """Put first what stands for most of the others; later what is unlike all that is labelled.

    Below COLD_START labels: the most typical volume of each of COLD_START groups without a label, largest group first
    (TypiClust, Hacohen et al., ICML 2022). After that the volume farthest from those labelled or chosen (k-center).
    """
    seen, unseen = _encoded(question.candidates), [v for v in question.candidates if v.embedding is None]
    if not seen:
        return [replace(c, reason=f"no volume has been encoded yet: {c.reason}") for c in _random(question)]
    known = _encoded(question.labelled)
    points, taken = _points([*known, *seen]), list(range(len(known)))
    placed = _typical(points, known=len(known), rng=question.rng) if len(question.labelled) < COLD_START else []
    taken += [number for number, _, _ in placed]
    placed += _farthest(points, taken, [n for n in range(len(known), len(points)) if n not in taken])
    order = [VolumeChoice(seen[n - len(known)].name, score, reason) for n, score, reason in placed]
    rest = _random(replace(question, candidates=unseen))
    return order + [VolumeChoice(c.name, None, "not encoded yet") for c in rest]


STRATEGIES: dict[str, Strategy] = {
    "random": _random,
    "strat_random": _stratified,
    "coverage": _coverage,
}
"""Every strategy by its name."""


def _encoded(volumes: Sequence[VolumeFeatures]) -> list[VolumeFeatures]:
    return [v for v in volumes if v.embedding is not None]


def _points(volumes: Sequence[VolumeFeatures]) -> Points:
    return to_points([v.embedding for v in volumes if v.embedding is not None])


def _in_proportion(
    seen: Sequence[VolumeFeatures], known: Sequence[VolumeFeatures], *, rng: np.random.Generator
) -> Order:
    """Take from the stratum that has got least of its share so far."""
    points = _points([*known, *seen])
    strata = clusters(points, min(MOST_STRATA, int(np.ceil(np.sqrt(len(points) / 2)))), rng=rng)
    sizes = np.bincount(strata).astype(float)
    taken = np.bincount(strata[: len(known)], minlength=len(sizes)).astype(float)
    waiting = {s: [n for n in rng.permutation(len(seen)) if strata[len(known) + n] == s] for s in range(len(sizes))}
    order: Order = []
    for _ in seen:
        owed = [sizes[s] * (taken.sum() + 1) / sizes.sum() - taken[s] + 1e-3 * rng.random() for s in waiting]
        stratum = max((s for s in waiting if waiting[s]), key=lambda s: owed[s])
        volume = seen[waiting[stratum].pop()]
        about = f"{sizes[stratum]:.0f} volumes, {taken[stratum]:.0f} of them labelled or offered before"
        order.append(VolumeChoice(volume.name, None, f"random within stratum {stratum + 1} of {len(sizes)} ({about})"))
        taken[stratum] += 1
    return order


def _typical(points: Points, *, known: int, rng: np.random.Generator) -> list[Placed]:
    """Place the most typical point of each group that has no known one."""
    groups = clusters(points, max(COLD_START, known + 1), rng=rng)
    near = neighbour_distance(points, neighbours=NEIGHBOURS)
    covered = set(groups[:known].tolist())
    sizes = np.bincount(groups)
    found: list[Placed] = []
    for group in sorted(set(groups.tolist()) - covered, key=lambda g: (-sizes[g], g)):
        members = np.flatnonzero(groups == group)
        best = int(members[near[members].argmin()])
        reason = f"most typical of {sizes[group]} volumes that look alike and have no label"
        found.append((best, 1.0 / max(float(near[best]), 1e-6), reason))
    return found


def _farthest(points: Points, chosen: Sequence[int], waiting: Sequence[int]) -> list[Placed]:
    """Place points by how far they are from all chosen ones, each counting as chosen in its turn."""
    rest = np.array(waiting, dtype=np.intp)
    far = cdist(points[rest], points[list(chosen)]).min(axis=1) if chosen else np.full(len(rest), np.inf)
    order: list[Placed] = []
    while len(rest) and len(order) < GREEDY:
        best = int(far.argmax()) if np.isfinite(far).all() else _central(points[rest])
        order.append(_placed(int(rest[best]), float(far[best])))
        far = np.minimum(far, cdist(points[rest], points[rest[best]][None])[:, 0])
        rest, far = np.delete(rest, best), np.delete(far, best)
    return order + [_placed(int(rest[n]), float(far[n])) for n in np.argsort(-far, kind="stable")]


def _placed(number: int, distance: float) -> Placed:
    if not np.isfinite(distance):
        return number, None, "nearest to the middle of all volumes"
    nearest = "the nearest volume that is labelled or comes before"
    return number, distance, f"{distance:.2f} of the usual distance from {nearest}"


def _central(points: Points) -> int:
    return int(np.linalg.norm(points - points.mean(axis=0), axis=1).argmin())


FILE = "active.yaml"


@dataclass(frozen=True, slots=True)
class ActiveSettings:
    """What `configs/active.yaml` says; raises ConfigError if a value is unknown or out of range."""

    strategy: str = "strat_random"  # the campaign's own
    offered: tuple[str, ...] = ("random", "strat_random", "coverage")  # names in the clients' menus
    # embed volumes while the server is idle; otherwise strategies that need embeddings choose by chance
    background: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.offered:
            if name not in STRATEGIES:
                raise ConfigError(f"The setting offered in {FILE} names '{name}', which is no strategy. Remove it.")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ConfigError(f"The setting seed in {FILE} is {self.seed!r}; give a whole number from 0.")


def active_settings() -> ActiveSettings:
    """Read `configs/active.yaml`.

    Raises:
        ConfigError: the file is missing, or a setting is unknown or out of range.
    """
    return build(ActiveSettings, read_config(FILE), where=FILE)
