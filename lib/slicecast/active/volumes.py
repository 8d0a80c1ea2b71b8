"""Which volume next: the strategies by name.

`rank(NAME, candidates, labelled, rng=..., progress=...)` orders the candidates, best first; everything follows from
the arguments. Offered are the strategies that were measured (docs/results/active-learning.md): `random`,
`strat_random`, `coverage` and `auto`. Formulas: docs/active-learning.md.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle

import numpy as np
from numpy.typing import NDArray

from slicecast.active.features import VolumeChoice, VolumeFeatures
from slicecast.active.health import doubts, say
from slicecast.active.orders import COLD_START, coverage_order, random_order, stratified_order
from slicecast.errors import ConfigError

__all__ = ["SCORES", "VolumeChoice", "VolumeFeatures", "is_strategy", "needs_scores", "rank", "strategy_names"]

SCORES = ("disagree", "cycle", "object_entropy")
"""The scores whose mean rank `auto` goes by."""

UNIFORM_SHARE = 0.2
"""Share of places that `auto` gives to chance: they keep an unbiased sample."""

STRUCTURE_SHARE = 0.66
"""Share of the other places that go to the structures in turn (ClaSP PE, arXiv 2601.13677)."""

FIRST_BETA, LAST_BETA = 1.0, 100.0
"""How greedy `auto` is at the campaign's beginning and end (power sampling with Gumbel noise)."""

LEAST_SCORE = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class _Question:
    """What a strategy is asked."""

    candidates: Sequence[VolumeFeatures]
    labelled: Sequence[VolumeFeatures]
    rng: np.random.Generator
    progress: float


Order = list[VolumeChoice]
Strategy = Callable[[_Question], Order]


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
        strategy: see the module's text.
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
    return (*order, *(VolumeChoice(v.name, None, say(doubted, v.name)) for v in ordered if v.name in doubted))


def is_strategy(name: str) -> bool:
    """Tell whether there is a strategy of that name."""
    return name in STRATEGIES


def needs_scores(name: str, labels: int = COLD_START) -> bool:
    """Tell whether a strategy asks for scores of volumes once there are so many labels."""
    return name == "auto" and labels >= COLD_START


def strategy_names() -> tuple[str, ...]:
    """Return the names of all strategies."""
    return tuple(STRATEGIES)


def mean_rank(scores: Sequence[Mapping[str, float]]) -> NDArray[np.float64]:
    """Return each volume's mean rank over SCORES, (N,) in (0, 1]: 1 is first in all of them.

    A score that a volume lacks does not count for it; equal values share their ranks.
    """
    ranks = np.full((len(SCORES), len(scores)), np.nan)
    for row, part in enumerate(SCORES):
        has = [n for n, own in enumerate(scores) if part in own]
        values = np.array([scores[n][part] for n in has])
        for n, value in zip(has, values, strict=True):
            below, same = (values < value).sum(), (values == value).sum()
            ranks[row, n] = (below + (same + 1) / 2) / len(values)
    counted = (~np.isnan(ranks)).sum(axis=0)
    return np.where(counted, np.nansum(ranks, axis=0) / np.maximum(counted, 1), 0.0)


def _random(question: _Question) -> Order:
    return random_order(question.candidates, rng=question.rng)


def _stratified(question: _Question) -> Order:
    return stratified_order(question.candidates, question.labelled, rng=question.rng)


def _coverage(question: _Question) -> Order:
    return coverage_order(question.candidates, question.labelled, rng=question.rng)


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


STRATEGIES: dict[str, Strategy] = {
    "random": _random,
    "strat_random": _stratified,
    "coverage": _coverage,
    "auto": _auto,
}
"""Every strategy by its name."""
