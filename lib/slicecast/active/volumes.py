"""Which volume next: the strategies by name.

`rank(NAME, candidates, labelled, rng=..., progress=...)` orders the candidates, best first; everything follows from
the arguments. Names: `random`, `strat_random`, `coverage`, `auto`, and the scores of SCORED. Around a score's name:
`power_` adds chance that fades as the campaign goes on, `clasp_` deals most places out among the structures,
`_per_cost` divides by the seconds a volume will take. Formulas: docs/active-learning.md.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from slicecast.active.chance import COLD_START, coverage_order, random_order, stratified_order
from slicecast.active.features import Choice, VolumeFeatures
from slicecast.active.health import doubts, say
from slicecast.active.scored import SCORED, Wish, scored_order
from slicecast.errors import ConfigError

__all__ = ["SCORED", "Choice", "VolumeFeatures", "is_strategy", "needs_scores", "rank", "strategy_names"]

UNIFORM_SHARE = 0.2
"""Share of places that `auto` gives to chance: they keep an unbiased sample."""

AUTO = "power_clasp_mean_rank"
"""What `auto` does after the cold start."""


@dataclass(frozen=True, slots=True, eq=False)
class _Question:
    """What a strategy is asked."""

    candidates: Sequence[VolumeFeatures]
    labelled: Sequence[VolumeFeatures]
    rng: np.random.Generator
    progress: float


Strategy = Callable[[_Question], list[Choice]]


def rank(
    strategy: str,
    candidates: Sequence[VolumeFeatures],
    labelled: Sequence[VolumeFeatures] = (),
    *,
    rng: np.random.Generator,
    progress: float = 0.0,
) -> tuple[Choice, ...]:
    """Order volumes without a label, the one to be labelled next first; every candidate is in the answer once.

    Damaged and empty volumes, far outliers and copies come last, with any strategy but plain `random`. Where the
    scores that a strategy needs are missing it falls back to `strat_random`, and says so.

    Args:
        strategy: see the module's text.
        candidates: without a label.
        labelled: with one; only their embeddings, contents and structures matter.
        rng: source of all chance.
        progress: 0 at the campaign's beginning, 1 at its end; `power_` strategies grow greedier.

    Raises:
        ConfigError: there is no such strategy, two volumes have one name, or progress is out of range.
    """
    decide = _find(strategy)
    names = [v.name for v in (*candidates, *labelled)]
    if len(set(names)) != len(names):
        raise ConfigError("Two volumes have the same name; give each volume once, labelled or not.")
    if not 0.0 <= progress <= 1.0:
        raise ConfigError(f"progress is {progress}; it must lie between 0 and 1.")
    ordered = sorted(candidates, key=lambda v: v.name)
    doubted = {} if strategy == "random" else doubts(ordered, labelled)
    fine = [v for v in ordered if v.name not in doubted]
    order = decide(_Question(fine, labelled, rng, progress)) if fine else []
    return (*order, *(Choice(v.name, None, say(doubted, v.name)) for v in ordered if v.name in doubted))


def is_strategy(name: str) -> bool:
    """Tell whether there is a strategy of that name."""
    return name in PLAIN or Wish.parse(name) is not None


def needs_scores(name: str) -> bool:
    """Tell whether a strategy asks for scores of volumes."""
    return name not in ("random", "strat_random", "coverage")


def strategy_names() -> tuple[str, ...]:
    """Return the names of all strategies without a wrapper."""
    return (*PLAIN, *SCORED)


def _find(name: str) -> Strategy:
    if name in PLAIN:
        return PLAIN[name]
    wish = Wish.parse(name)
    if wish is None:
        raise ConfigError(
            f"There is no strategy '{name}'. Choose one of {', '.join(strategy_names())}; "
            "before a score's name you may put power_ and clasp_, behind it _per_cost."
        )
    return lambda question: _by_score(wish, question)


def _random(question: _Question) -> list[Choice]:
    return random_order(question.candidates, rng=question.rng)


def _stratified(question: _Question) -> list[Choice]:
    return stratified_order(question.candidates, question.labelled, rng=question.rng)


def _coverage(question: _Question) -> list[Choice]:
    return coverage_order(question.candidates, question.labelled, rng=question.rng)


def _by_score(wish: Wish, question: _Question) -> list[Choice]:
    """Order by a score; what has none follows as `strat_random` would have it."""
    scored, unscored = wish.split(question.candidates)
    rest = _stratified(replace(question, candidates=unscored))
    if not scored:
        return [replace(c, reason=f"no volume has the score {wish.score} yet: {c.reason}") for c in rest]
    order = scored_order(wish, scored, question.labelled, rng=question.rng, progress=question.progress)
    return order + [replace(c, reason=f"no score {wish.score} yet: {c.reason}") for c in rest]


def _auto(question: _Question) -> list[Choice]:
    """Cover what there is, then ask where the model is in doubt; a share of the places goes to chance."""
    count = len(question.labelled)
    if count < COLD_START:
        return [replace(c, reason=f"{count} labels so far: {c.reason}") for c in _coverage(question)]
    wish = Wish.parse(AUTO)
    if wish is None or not wish.split(question.candidates)[0]:
        return _find(AUTO)(question)
    by_score, by_chance = _find(AUTO)(question), _random(question)
    return _mixed(by_score, by_chance, share=UNIFORM_SHARE, rng=question.rng)


def _mixed(first: list[Choice], second: list[Choice], *, share: float, rng: np.random.Generator) -> list[Choice]:
    """Deal out places: each goes to the next of the second order with this chance, else to the next of the first."""
    taken: set[str] = set()
    orders = iter(first), iter(second)
    mixed: list[Choice] = []
    for picked in rng.random(len(first)) < share:
        choice = next(c for c in orders[int(picked)] if c.name not in taken)
        taken.add(choice.name)
        mixed.append(replace(choice, reason=f"one pick in {1 / share:.0f} is left to chance") if picked else choice)
    return mixed


PLAIN: dict[str, Strategy] = {"random": _random, "strat_random": _stratified, "coverage": _coverage, "auto": _auto}
"""Strategies that need no score, or choose one themselves."""
