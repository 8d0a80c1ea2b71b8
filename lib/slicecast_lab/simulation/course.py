"""One case played with one slice strategy, through the real product.

The robot prompts the object's largest slice, the strategy names a slice, the robot puts it right, and so on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slicecast.active.slices import STRATEGIES as PRODUCT
from slicecast.errors import ConfigError
from slicecast_lab.evaluation.cases import pick_slice
from slicecast_lab.simulation.annotator import Answer, Bench, Mask, Said
from slicecast_lab.simulation.effort import Actions
from slicecast_lab.simulation.robot import generator

OWN = ("random", "oracle_worst")
"""Strategies of the simulation itself: chance within what is seen, and the slice with the most wrong voxels."""

INSTEAD = "strided"
"""Goes on where another strategy finds it good enough."""

DIGITS = 5


def check_strategy(name: str) -> None:
    """Raise ConfigError where a name, or a part of it, is no slice strategy."""
    for part in name.split("+"):
        if part not in PRODUCT and part not in OWN:
            raise ConfigError(f"There is no slice strategy '{part}'. Choose from: {', '.join([*PRODUCT, *OWN])}.")


def play(bench: Bench, strategy: str, corrections: int) -> dict[str, Any]:
    """Play one case with one strategy; a course ends early where the strategy has nothing more to ask.

    Returns:
        by step, the first included: slice as stored, Dice over the volume, and what it took.
    """
    return {"steps": [_step(bench, turn) for turn in turns(bench, strategy, corrections)]}


def play_label(bench: Bench, strategy: str, corrections: int) -> tuple[Mask, list[int]]:
    """Play one case; return the mask that is submitted, bool [k, j, i] as stored, and what it took."""
    taken = list(turns(bench, strategy, corrections, go_on=False))
    return taken[-1].answer.mask, _listed(sum((turn.done for turn in taken), Actions()))


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """A slice put right, the product's answer after it, what it took, and whether the strategy finds it good enough."""

    number: int
    answer: Answer
    done: Actions
    enough: bool


def turns(bench: Bench, strategy: str, corrections: int, *, go_on: bool = True) -> Iterator[Turn]:
    """Yield the turns of a case; fewer than asked for where no slice is left to name.

    Args:
        strategy: ``extent+value``: the second where the first has nothing more to ask.
        go_on: a strategy that finds it good enough is followed by `strided`, so that all courses are equally long.
    """
    number, enough = pick_slice(bench.case, "largest"), False
    said, done = bench.correct(Said(), number, None)
    for count in range(corrections + 1):
        parts = ([] if enough else strategy.split("+")) + [INSTEAD] * go_on
        answer, chosen, by = _consult(bench, said, parts, last=count == corrections)
        enough = enough or by == len(strategy.split("+"))
        yield Turn(number, answer, done, enough)
        if chosen is None:
            return
        number, only_present = chosen
        said, done = bench.correct(said, number, answer, only_present=only_present)


def _consult(
    bench: Bench, said: Said, parts: Sequence[str], *, last: bool
) -> tuple[Answer, tuple[int, bool] | None, int]:
    """Return the product's answer, which slice is next with whether only its presence is asked, and who named it."""
    for place, part in enumerate(parts):
        answer = bench.ask(said, part if part in PRODUCT else "")
        if last:
            return answer, None, place
        chosen = _of_product(bench, said, answer) if part in PRODUCT else _own(bench, said, answer, part)
        if chosen is not None:
            return answer, chosen, place
    return answer, None, 0


def _of_product(bench: Bench, said: Said, answer: Answer) -> tuple[int, bool] | None:
    hint = answer.next_slice
    if hint is None:
        return None
    number = bench.case.stored_slice(hint.slice)
    return None if number in said.slices else (number, hint.question == "present")


def _own(bench: Bench, said: Said, answer: Answer, name: str) -> tuple[int, bool] | None:
    case = bench.case
    seen = case.slices(answer.mask if name == "random" else answer.mask != case.truth)
    voxels = np.array([np.count_nonzero(seen.slice(n)) for n in range(seen.count)])
    voxels[sorted(said.slices)] = 0
    if not voxels.any():
        return None
    if name == "oracle_worst":
        return int(voxels.argmax()), False
    rng = generator(bench.robot.seed, name, case.files.id, len(said.slices))
    return int(rng.choice(np.flatnonzero(voxels))), False


def _step(bench: Bench, turn: Turn) -> dict[str, Any]:
    return {
        "slice": bench.case.stored_slice(turn.number),
        "dice": round(bench.dice(turn.answer), DIGITS),
        "actions": _listed(turn.done),
        "enough": turn.enough,
    }


def _listed(done: Actions) -> list[int]:
    return [done.looks, done.clicks, done.boxes, done.masks]
