"""What labels of other volumes taught about the model's confidence, before a case is played."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from slicecast.active.calibration import Calibration, Pair, SliceFeatures, calibrate
from slicecast.inference.segment import SegmentService
from slicecast_lab.evaluation.cases import CaseFiles, read_case
from slicecast_lab.simulation.annotator import Bench
from slicecast_lab.simulation.cases import content_of
from slicecast_lab.simulation.course import turns
from slicecast_lab.simulation.robot import PERFECT, Robot

TEACHER_CORRECTIONS = 3
"""Slices put right in each volume that teaches; every answer on the way shows slices and how good they were."""


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
        bench = Bench(case, service, self.robot, self.strokes)
        found = turns(bench, "strided", TEACHER_CORRECTIONS)
        return [
            [features.to_row(), round(bench.iou(turn.answer, number), 4)]
            for turn in found
            for number, features in turn.answer.features.items()
        ]


@dataclass(frozen=True, slots=True)
class Taught:
    """Slices of known truth.

    Args:
        digest: names them all.
    """

    pairs: tuple[Pair, ...] = field(default=(), repr=False)
    digest: str = ""

    @staticmethod
    def of(results: Iterable[tuple[str, Sequence[Any]]]) -> "Taught":
        """Collect what `PairTask.run` returned, by volume."""
        pairs = tuple(Pair(name, SliceFeatures.from_row(row), iou) for name, rows in results for row, iou in rows)
        return Taught(pairs, hashlib.sha256(repr(pairs).encode()).hexdigest()[:16])

    def calibration(self) -> Calibration:
        """Return what follows from them."""
        return _calibration(self)


UNTAUGHT = Taught()


@lru_cache(maxsize=64)
def _calibration(taught: Taught) -> Calibration:
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
            name: None if said is None else {key: round(getattr(said, key), 4) for key in ("spearman", "ece", "aurc")}
            for name, said in (("before", before), ("after", after))
        },
    }
