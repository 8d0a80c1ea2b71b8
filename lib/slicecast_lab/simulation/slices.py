"""Experiment E2: which slice next. Weights are frozen, one volume at a time, through the real product.

The robot prompts the largest slice of the object, the strategy names a slice, the robot corrects it, and so on. What
labels of other volumes taught about the model's confidence is known beforehand.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from slicecast.active.calibration import UNCALIBRATED, Calibration, Pair, SliceFeatures, calibrate
from slicecast.active.slices import STRATEGIES as PRODUCT
from slicecast.errors import ConfigError
from slicecast.inference.segment import SegmentService
from slicecast_lab.evaluation.cases import CaseFiles, content_of, read_case
from slicecast_lab.evaluation.prompts import pick_slice
from slicecast_lab.simulation.annotator import (
    PERFECT,
    STROKES,
    Actions,
    GivenPrompts,
    Mask,
    ProductAnswer,
    Robot,
    RobotSession,
    generator,
)
from slicecast_lab.simulation.strategies import RAW, check_slices

INSTEAD = "strided"  # Goes on where another strategy finds it good enough

DIGITS = 5


def play(session: RobotSession, strategy: str, corrections: int) -> dict[str, Any]:
    """Play one case with one strategy; a course ends early where the strategy has nothing more to ask.

    Returns:
        by step, the first included: slice as stored, Dice over the volume, and what it took.
    """
    return {"steps": [_step(session, turn) for turn in turns(session, strategy, corrections)]}


def play_label(session: RobotSession, strategy: str, corrections: int) -> tuple[Mask, list[int]]:
    """Play one case; return the mask that is submitted, bool [k, j, i] as stored, and what it took."""
    taken = list(turns(session, strategy, corrections, go_on=False))
    return taken[-1].answer.mask, _listed(sum((turn.done for turn in taken), Actions()))


@dataclass(frozen=True, slots=True, eq=False)
class CorrectedSlice:
    """A corrected slice, the product's answer after it, what it cost, and whether the strategy finds it good enough."""

    number: int
    answer: ProductAnswer
    done: Actions
    enough: bool


def turns(session: RobotSession, strategy: str, corrections: int, *, go_on: bool = True) -> Iterator[CorrectedSlice]:
    """Yield the turns of a case; fewer than asked for where no slice is left to name.

    Args:
        strategy: its name.
        go_on: a strategy that finds it good enough is followed by `strided`, so that all courses are equally long.
    """
    number, enough = pick_slice(session.case, "largest"), False
    given, done = session.correct(GivenPrompts(), number, None)
    for count in range(corrections + 1):
        parts = [strategy] * (not enough) + [INSTEAD] * go_on
        answer, chosen, by = _consult(session, given, parts, last=count == corrections)
        enough = enough or by == 1
        yield CorrectedSlice(number, answer, done, enough)
        if chosen is None:
            return
        number = chosen
        given, done = session.correct(given, number, answer)


def _consult(
    session: RobotSession, given: GivenPrompts, parts: Sequence[str], *, last: bool
) -> tuple[ProductAnswer, int | None, int]:
    """Return the product's answer, which slice is next, and who named it."""
    for place, part in enumerate(parts):
        answer = session.ask(given, part if part in PRODUCT else "")
        if last:
            return answer, None, place
        chosen = _of_product(session, given, answer) if part in PRODUCT else _own(session, given, answer, part)
        if chosen is not None:
            return answer, chosen, place
    return answer, None, 0


def _of_product(session: RobotSession, given: GivenPrompts, answer: ProductAnswer) -> int | None:
    hint = answer.next_slice
    if hint is None:
        return None
    number = session.case.stored_slice(hint.slice)
    return None if number in given.settled else number


def _own(session: RobotSession, given: GivenPrompts, answer: ProductAnswer, name: str) -> int | None:
    case = session.case
    seen = case.slices(answer.mask if name == "random" else answer.mask != case.truth)
    voxels = np.array([np.count_nonzero(seen.slice(n)) for n in range(seen.count)])
    voxels[sorted(given.slices)] = 0
    if not voxels.any():
        return None
    if name == "oracle_worst":
        return int(voxels.argmax())
    rng = generator(session.robot.seed, name, case.files.id, len(given.slices))
    return int(rng.choice(np.flatnonzero(voxels)))


def _step(session: RobotSession, turn: CorrectedSlice) -> dict[str, Any]:
    return {
        "slice": session.case.stored_slice(turn.number),
        "dice": round(session.dice(turn.answer), DIGITS),
        "actions": _listed(turn.done),
        "enough": turn.enough,
    }


def _listed(done: Actions) -> list[int]:
    return [done.looks, done.clicks, done.boxes, done.masks]


TEACHER_CORRECTIONS = 3
"""Slices corrected in each volume that teaches; every answer on the way shows how good its slices were."""


@dataclass(frozen=True, slots=True)
class PairTask:
    """A volume that is labelled, evenly spaced slices first; its slices show how right the model's confidence was."""

    files: CaseFiles
    robot: Robot = PERFECT
    strokes: str = "mask"

    @property
    def name(self) -> str:
        """The case's name."""
        return f"{self.files.id}, its confidence"

    @property
    def key(self) -> tuple:
        """All that the result depends on."""
        return "pairs", content_of(self.files), self.robot, self.strokes, TEACHER_CORRECTIONS

    def run(self, service: SegmentService) -> list[Any]:
        """Return (features, IoU) of every slice that was not prompted, of every answer."""
        case = read_case(self.files)
        session = RobotSession(case, service, self.robot, self.strokes)
        found = turns(session, "strided", TEACHER_CORRECTIONS)
        return [
            [features.to_row(), round(session.iou(turn.answer, number), 4)]
            for turn in found
            for number, features in turn.answer.features.items()
        ]


@dataclass(frozen=True, slots=True)
class TaughtPairs:
    """Slices of known truth."""

    pairs: tuple[Pair, ...] = field(default=(), repr=False)
    digest: str = ""  # names them all

    @staticmethod
    def of(results: Iterable[tuple[str, Sequence[Any]]]) -> "TaughtPairs":
        """Collect what `PairTask.run` returned, by volume."""
        pairs = tuple(Pair(name, SliceFeatures.from_row(row), iou) for name, rows in results for row, iou in rows)
        return TaughtPairs(pairs, hashlib.sha256(repr(pairs).encode()).hexdigest()[:16])

    def calibration(self) -> Calibration:
        """Return what follows from them."""
        return _calibration(self)


UNTAUGHT = TaughtPairs()


@lru_cache(maxsize=64)
def _calibration(taught: TaughtPairs) -> Calibration:
    return calibrate(taught.pairs)


def describe(calibration: Calibration) -> dict[str, Any]:
    """Return how well confidence fits the truth, on volumes that were left out, as JSON values."""
    before, after = calibration.before, calibration.after
    return {
        "method": calibration.method,
        "slices": calibration.slices,
        "volumes": calibration.volumes,
        "holds": calibration.holds,
        **{
            name: None if fit is None else {key: round(getattr(fit, key), 4) for key in ("spearman", "ece", "aurc")}
            for name, fit in (("before", before), ("after", after))
        },
    }


DEFAULTS = ("value", "strided", "worst", "disagree", "raw:value", "raw:worst", "random", "oracle_worst")


@dataclass(frozen=True, slots=True)
class SliceTask:
    """One case and all strategies, which share the first answer."""

    files: CaseFiles
    strategies: tuple[str, ...]  # names, perhaps with `RAW` before them
    corrections: int  # slices corrected after the first
    robot: Robot = PERFECT
    strokes: str = "mask"
    taught: TaughtPairs = UNTAUGHT  # what was learned from labels of other volumes

    def __post_init__(self) -> None:
        for name in self.strategies:
            check_slices(name)
        if not self.strategies or len(set(self.strategies)) != len(self.strategies):
            raise ConfigError("Name each strategy once, and at least one.")
        if self.strokes not in STROKES:
            raise ConfigError(f"The robot cannot correct by {self.strokes!r}. Use one of: {', '.join(STROKES)}.")
        if self.corrections < 1:
            raise ConfigError(f"{self.corrections} corrections were asked for; give 1 or more.")

    @property
    def name(self) -> str:
        """The case's name."""
        return self.files.id

    @property
    def key(self) -> tuple:
        """All that the result depends on."""
        settings = self.strategies, self.corrections, self.robot, self.strokes, self.taught.digest
        return "slices", content_of(self.files), *settings

    def run(self, service: SegmentService) -> dict[str, Any]:
        """Play the case with each strategy."""
        case = read_case(self.files)
        session = RobotSession(case, service, self.robot, self.strokes)
        courses = {}
        for name in self.strategies:
            service.calibration = UNCALIBRATED if name.startswith(RAW) else self.taught.calibration()
            courses[name] = play(session, name.removeprefix(RAW), self.corrections)
        return {
            "id": self.files.id,
            "group": self.files.group,
            "first": case.stored_slice(pick_slice(case, "largest")),
            "courses": courses,
        }
