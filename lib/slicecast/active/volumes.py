"""Which volume next: the strategies by name, and the settings of their use.

`rank(NAME, candidates, labelled, rng=..., progress=...)` orders the candidates, best first; everything follows from
the arguments. Offered are the strategies that were measured (docs/results/active-learning.md): `random`,
`strat_random`, `coverage` and `auto`. Formulas: docs/active-learning.md.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.stats import rankdata

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

__all__ = ["SCORES", "STRATEGIES", "ActiveSettings", "VolumeChoice", "VolumeFeatures", "needs_scores", "rank"]

SCORES = ("disagree", "cycle", "object_entropy")  # The scores whose mean rank `auto` goes by
UNIFORM_SHARE = 0.2  # Share of places that `auto` gives to chance: they keep an unbiased sample
STRUCTURE_SHARE = 0.66  # Share of the other places that go to the structures in turn (ClaSP PE, arXiv 2601.13677)

FIRST_BETA, LAST_BETA = 1.0, 100.0
"""How greedy `auto` is at the campaign's beginning and end (power sampling with Gumbel noise)."""

LEAST_SCORE = 1e-6

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
    progress: float


Order = list[VolumeChoice]
Strategy = Callable[[_Question], Order]
Placed = tuple[int, float | None, str]  # A point's number, its score, and the reason for its place


def rank(
    strategy: str,
    candidates: Sequence[VolumeFeatures],
    labelled: Sequence[VolumeFeatures] = (),
    *,
    rng: np.random.Generator,
    progress: float = 0.0,
) -> tuple[VolumeChoice, ...]:
    """Order volumes without a label, the one to be labelled next first; every candidate is in the answer once.

    Damaged and empty volumes, far outliers and copies come last, with any strategy but plain `random`. Where the
    scores that `auto` needs are missing it falls back to `strat_random`, and says so.

    Args:
        strategy: a name in STRATEGIES.
        candidates: without a label.
        labelled: with one; only their embeddings, contents and structures matter.
        rng: source of all chance.
        progress: 0 at the campaign's beginning, 1 at its end; `auto` grows greedier.

    Raises:
        ConfigError: there is no such strategy, two volumes have one name, or progress is out of range.
    """
    if strategy not in STRATEGIES:
        raise ConfigError(f"There is no strategy '{strategy}'. Choose one of {', '.join(STRATEGIES)}.")
    names = [v.name for v in (*candidates, *labelled)]
    if len(set(names)) != len(names):
        raise ConfigError("Two volumes have the same name; give each volume once, labelled or not.")
    if not 0.0 <= progress <= 1.0:
        raise ConfigError(f"progress is {progress}; it must lie between 0 and 1.")
    ordered = sorted(candidates, key=lambda v: v.name)
    doubted = {} if strategy == "random" else doubts(ordered, labelled)
    fine = [v for v in ordered if v.name not in doubted]
    order = STRATEGIES[strategy](_Question(fine, labelled, rng, progress)) if fine else []
    last = [VolumeChoice(v.name, None, f"comes last: {doubted[v.name]}") for v in ordered if v.name in doubted]
    return (*order, *last)


def needs_scores(name: str, labels: int = COLD_START) -> bool:
    """Tell whether a strategy asks for scores of volumes once there are so many labels."""
    return name == "auto" and labels >= COLD_START


def mean_rank(scores: Sequence[Mapping[str, float]]) -> NDArray[np.float64]:
    """Return each volume's mean rank over SCORES, (N,) in (0, 1]: 1 is first in all of them.

    A score that a volume lacks does not count for it; equal values share their ranks.
    """
    ranks = np.full((len(SCORES), len(scores)), np.nan)
    for row, part in enumerate(SCORES):
        has = [n for n, own in enumerate(scores) if part in own]
        if has:
            ranks[row, has] = rankdata([scores[n][part] for n in has]) / len(has)
    counted = (~np.isnan(ranks)).sum(axis=0)
    return np.where(counted, np.nansum(ranks, axis=0) / np.maximum(counted, 1), 0.0)


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


def _auto(question: _Question) -> Order:
    """Cover what there is, then ask where the model is in doubt; a share of the places goes to chance."""
    count = len(question.labelled)
    if count < COLD_START:
        so_far = "1 label" if count == 1 else f"{count} labels"
        return [replace(c, reason=f"{so_far} so far: {c.reason}") for c in _coverage(question)]
    scored = [v for v in question.candidates if _has_scores(v)]
    rest = _stratified(replace(question, candidates=[v for v in question.candidates if not _has_scores(v)]))
    if not scored:
        return [replace(c, reason=f"no volume has scores yet: {c.reason}") for c in rest]
    by_score = _by_doubt(replace(question, candidates=scored))
    by_score += [replace(c, reason=f"no scores yet: {c.reason}") for c in rest]
    return _mixed(by_score, _random(question), rng=question.rng)


STRATEGIES: dict[str, Strategy] = {
    "random": _random,
    "strat_random": _stratified,
    "coverage": _coverage,
    "auto": _auto,
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


def _has_scores(volume: VolumeFeatures) -> bool:
    return any(name in volume.scores for name in SCORES)


def _by_doubt(question: _Question) -> Order:
    """Order by mean rank, most places dealt out among the structures."""
    whole = _drawn(question, [v.scores for v in question.candidates])
    structures = _structures(question)
    return whole if len(structures) < 2 else _dealt(whole, [_drawn_for(question, s) for s in structures], question.rng)


def _structures(question: _Question) -> list[str]:
    """Return the structures that have scores, the one labelled least often first."""
    names = {name for v in question.candidates for name in v.scores_by_structure}
    return sorted(names, key=lambda name: (sum(name in v.scores_by_structure for v in question.labelled), name))


def _drawn_for(question: _Question, structure: str) -> Order:
    """Order the volumes by one structure's scores."""
    own = [replace(v, scores=v.scores_by_structure.get(structure, {})) for v in question.candidates]
    scored = [v for v in own if _has_scores(v)]
    return _drawn(replace(question, candidates=scored), [v.scores for v in scored], structure) if scored else []


def _drawn(question: _Question, scores: Sequence[Mapping[str, float]], structure: str = "") -> Order:
    """Order by mean rank and chance that fades as the campaign goes on."""
    values = mean_rank(scores)
    beta = FIRST_BETA * (LAST_BETA / FIRST_BETA) ** question.progress
    keys = np.log(np.maximum(values, LEAST_SCORE)) + question.rng.gumbel(scale=1.0 / beta, size=len(values))
    place = {int(n): position for position, n in enumerate(np.argsort(-values, kind="stable"), start=1)}
    order: Order = []
    for n in (int(n) for n in np.argsort(-keys, kind="stable")):
        parts = ", ".join(f"{part} {scores[n][part]:.3f}" for part in SCORES if part in scores[n])
        about = f"mean rank {values[n]:.2f} of {parts}" + (f" for '{structure}'" if structure else "")
        reason = f"{about}: number {place[n]} of {len(values)} that were scored, drawn with chance by score"
        order.append(VolumeChoice(question.candidates[n].name, float(values[n]), reason))
    return order


def _dealt(whole: Order, orders: Sequence[Order], rng: np.random.Generator) -> Order:
    """Deal out places: most go to the structures in turn, the others to the order by the whole volume's scores."""
    taken: set[str] = set()
    rest, waiting = iter(whole), cycle([iter(order) for order in orders])
    dealt: Order = []
    for special in rng.random(len(whole)) < STRUCTURE_SHARE:
        choice = _untaken(next(waiting), taken) if special else None
        choice = choice or _untaken(rest, taken)
        if choice is not None:
            taken.add(choice.name)
            dealt.append(choice)
    return dealt


def _untaken(order: Iterator[VolumeChoice], taken: set[str]) -> VolumeChoice | None:
    return next((choice for choice in order if choice.name not in taken), None)


def _mixed(first: Order, second: Order, *, rng: np.random.Generator) -> Order:
    """Deal out places: each goes to the second order with the chance UNIFORM_SHARE, else to the first."""
    taken: set[str] = set()
    orders = iter(first), iter(second)
    mixed: Order = []
    for picked in rng.random(len(first)) < UNIFORM_SHARE:
        choice = next(c for c in orders[int(picked)] if c.name not in taken)
        taken.add(choice.name)
        reason = f"one pick in {1 / UNIFORM_SHARE:.0f} is left to chance"
        mixed.append(replace(choice, reason=reason) if picked else choice)
    return mixed


FILE = "active.yaml"


@dataclass(frozen=True, slots=True)
class ActiveSettings:
    """What `configs/active.yaml` says; raises ConfigError if a value is unknown or out of range."""

    strategy: str = "strat_random"  # the campaign's own
    offered: tuple[str, ...] = ("random", "strat_random", "coverage", "auto")  # names in the clients' menus
    # score volumes while the server is idle; otherwise strategies that need scores choose by chance
    background: bool = True
    share: float = 0.25  # of the volumes without a label, the share scored in each round
    least: int = 50  # but at least so many
    budget: int = 0  # volumes that are to be labelled in all; 0 for every one there is
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "offered", tuple(self.offered))
        for name in self.offered:
            if name not in STRATEGIES:
                raise ConfigError(f"The setting offered in {FILE} names '{name}', which is no strategy. Remove it.")
        if not 0.0 < self.share <= 1.0:
            raise ConfigError(f"The setting share in {FILE} is {self.share!r}; give a number above 0, at most 1.")
        for name, least in (("least", 1), ("budget", 0), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"The setting {name} in {FILE} is {value!r}; give a whole number from {least}.")


def active_settings() -> ActiveSettings:
    """Read `configs/active.yaml`.

    Raises:
        ConfigError: the file is missing, or a setting is unknown or out of range.
    """
    return build(ActiveSettings, read_config(FILE), where=FILE)
