"""Experiment E2: which slice next. Weights frozen, one volume at a time; see `course`."""

from dataclasses import dataclass
from typing import Any

from slicecast.active.calibration import UNCALIBRATED
from slicecast.errors import ConfigError
from slicecast.inference.segment import SegmentService
from slicecast_lab.evaluation.cases import CaseFiles, pick_slice, read_case
from slicecast_lab.simulation.annotator import STROKES, Bench
from slicecast_lab.simulation.cases import content_of
from slicecast_lab.simulation.course import check_strategy, play
from slicecast_lab.simulation.robot import PERFECT, Robot
from slicecast_lab.simulation.taught import UNTAUGHT, Taught

RAW = "raw:"
"""Before a strategy's name: without what other labels taught about the model's confidence."""

DEFAULTS = ("value", "strided", "worst", "disagree", "extent+value", "raw:value", "raw:worst", "random", "oracle_worst")


@dataclass(frozen=True, slots=True)
class SliceTask:
    """One case and all strategies, which share the first answer.

    Args:
        strategies: names; ``extent+value``: the second where the first has nothing more to ask; `RAW` before a name.
        corrections: slices put right after the first.
        taught: what labels of other volumes taught.
    """

    files: CaseFiles
    strategies: tuple[str, ...]
    corrections: int
    robot: Robot = PERFECT
    strokes: str = "mask"
    taught: Taught = UNTAUGHT

    def __post_init__(self) -> None:
        for name in self.strategies:
            check_strategy(name.removeprefix(RAW))
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
        bench = Bench(case, service, self.robot, self.strokes)
        courses = {}
        for name in self.strategies:
            service.calibration = UNCALIBRATED if name.startswith(RAW) else self.taught.calibration()
            courses[name] = play(bench, name.removeprefix(RAW), self.corrections)
        return {
            "id": self.files.id,
            "group": self.files.group,
            "first": case.stored_slice(pick_slice(case, "largest")),
            "courses": courses,
        }
