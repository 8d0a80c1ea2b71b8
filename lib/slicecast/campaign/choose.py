"""Which case a person gets next: who may have which, and in which order. Pure.

The order itself comes from outside as a `Ranking`: scores are made elsewhere, in the background. What comes first
whatever the ranking says: what was rejected, then hidden gold cases and second readings as often as was asked for.
"""

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from slicecast.campaign.state import DONE, Case, ReadingTask, State, Status


@dataclass(frozen=True, slots=True)
class Choice:
    """A case, and why.

    Args:
        reason: in words and numbers.
        score: the strategy's, if it has one.
        task: what is to be done.
    """

    case: str
    reason: str
    score: float | None = None
    task: ReadingTask = ReadingTask.ANNOTATE


Ranking = Callable[[Sequence[str]], Sequence[Choice]]
"""Gets the names of the candidates, sorted; returns some or all of them, best first. Must not compute for long."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What a campaign asks for.

    Args:
        lease_s: how long a lease lasts without a sign of life.
        second_share: share of the cases, 0 to 1, that a second person reads too.
        gold_share: chance, 0 to 1, that the next case is a hidden gold one.
        seed: of the choice of cases to be read twice.
    """

    lease_s: float = 1800.0
    second_share: float = 0.1
    gold_share: float = 0.05
    seed: int = 0


def read_twice(case: str, rules: Rules) -> bool:
    """Tell whether a case is among those read twice: decided by its name, so nobody can foresee or bend it later."""
    digest = hashlib.sha256(f"{rules.seed}/{case}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < rules.second_share * 2**64


def choose_next(
    state: State,
    who: str,
    *,
    available: Sequence[str],
    ranking: Ranking,
    rules: Rules,
    rng: random.Random,
    now_s: float,
    avoid: str | None = None,
) -> Choice | None:
    """Choose a person's next case; None when there is nothing left for them.

    Args:
        available: names of the images that there are.
        avoid: the case just handed back; given again only when there is no other.
    """
    free = [case for case in map(state.case, available) if _free(case, who, now_s)]
    gold = _gold(free, who, rules=rules, rng=rng)
    for cases in (free if avoid is None else [case for case in free if case.name != avoid], free):
        choice = (
            _again(cases, who)
            or gold
            or _first(cases, who, ranking, skipped=False)
            or _second(cases, who, rules)
            or _first(cases, who, ranking, skipped=True)
        )
        if choice is not None:
            return choice
    return None


def _free(case: Case, who: str, now_s: float) -> bool:
    return case.lease is None or not case.lease.live(now_s) or case.lease.who == who


def _again(cases: Sequence[Case], who: str) -> Choice | None:
    rejected = [case for case in cases if case.status is Status.REJECTED and who not in case.skipped_by]
    mine = [case for case in rejected if case.read_by(who)]
    for case in mine or [case for case in rejected if not case.read_by(who)]:
        return Choice(case.name, f"rejected in review: {case.note or 'no reason given'}")
    return None


def _gold(cases: Sequence[Case], who: str, *, rules: Rules, rng: random.Random) -> Choice | None:
    """The reason gives nothing away: an annotator must not know."""
    gold = [case for case in cases if case.gold and not case.read_by(who) and who not in case.skipped_by]
    if not gold or rng.random() >= rules.gold_share:
        return None
    return Choice(rng.choice(gold).name, "picked at random", task=ReadingTask.GOLD)


def _first(cases: Sequence[Case], who: str, ranking: Ranking, *, skipped: bool) -> Choice | None:
    names = sorted(
        case.name
        for case in cases
        if case.status is Status.OPEN and not case.gold and (who in case.skipped_by) is skipped
    )
    ranked = ranking(names) if names else ()
    if not ranked:
        return None
    best = ranked[0]
    return Choice(best.case, f"you skipped it before; {best.reason}", best.score) if skipped else best


def _second(cases: Sequence[Case], who: str, rules: Rules) -> Choice | None:
    for case in cases:
        if _wants_second(case, rules) and not case.read_by(who) and who not in case.skipped_by:
            return Choice(case.name, "to be read by a second person", task=ReadingTask.SECOND)
    return None


def _wants_second(case: Case, rules: Rules) -> bool:
    read_once = case.reading(ReadingTask.ANNOTATE) is not None and case.reading(ReadingTask.SECOND) is None
    return read_once and case.status in DONE and read_twice(case.name, rules)
