"""Tasks around the model that "learns" from labelled volumes without training: labels are its memory.

A volume is segmented from the label of the labelled volume that looks most like it, whose slices are conditioning
memory (as FATE-SAM does). No weight changes: answers get better with more labels because the nearest gets nearer.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from slicecast.inference.predictors import QueuedPredictor
from slicecast.inference.segment import SegmentRequest, SegmentService
from slicecast.inference.studies import Study
from slicecast.labelling.strategies import embed
from slicecast.prompts import Box, ObjectPrompts, PromptSet
from slicecast.prompts.mapping import slice_to_source_ijk
from slicecast.volume import choose_axis
from slicecast.volume.metrics import dice
from slicecast_lab.evaluation.cases import CaseFiles, TruthCase, content_of, read_case
from slicecast_lab.simulation.annotator import NAME, PERFECT, Mask, Robot, RobotSession
from slicecast_lab.simulation.slices import play_label
from slicecast_lab.simulation.support import Support

DIGITS = 5

read_once = lru_cache(maxsize=256)(read_case)  # Cases are read once a process; they are small, or few


@dataclass(frozen=True, slots=True)
class Labelling:
    """How a volume's label came about."""

    strategy: str = ""  # slice strategy of the robot's session; none: the robot paints every slice, without the model
    corrections: int = 0  # slices corrected after the first
    robot: Robot = PERFECT
    strokes: str = "mask"

    def label(self, case: TruthCase, service: SegmentService) -> tuple[Mask, list[int]]:
        """Return the label, bool [k, j, i] as stored, and what it took: looks, clicks, boxes, masks."""
        if not self.strategy:
            return self._paint(case)
        return play_label(RobotSession(case, service, self.robot, self.strokes), self.strategy, self.corrections)

    def _paint(self, case: TruthCase) -> tuple[Mask, list[int]]:
        label = np.zeros_like(case.truth)
        stack, truth, shown = case.slices(label), case.slices(case.truth), np.flatnonzero(case.areas).tolist()
        for number in shown:
            stack.slice(number)[...] = self.robot.paint(truth.slice(number), case.files.id, number)  # a view
        return label, [len(shown), 0, 0, len(shown)]


TRUTH = Labelling()  # What the perfect robot paints


@dataclass(frozen=True, slots=True)
class EmbedTask:
    """What a volume looks like to the model, as a vector."""

    files: CaseFiles

    @property
    def name(self) -> str:
        """The case's name."""
        return f"{self.files.id}, what it looks like"

    @property
    def key(self) -> tuple:
        """All that the result depends on."""
        return "embed", content_of(self.files)

    def run(self, service: SegmentService) -> list[float]:
        """Return the embedding."""
        vector = embed(service.predictor, service.studies.open(self.files.image))
        return [round(float(value), DIGITS) for value in vector]


@dataclass(frozen=True, slots=True)
class SupportTask:
    """One volume is labelled; how well is each of the queries segmented from that label alone?"""

    support: CaseFiles
    queries: tuple[CaseFiles, ...]
    labelling: Labelling = TRUTH

    @property
    def name(self) -> str:
        """The labelled case's name."""
        return f"{self.support.id} as memory"

    @property
    def key(self) -> tuple:
        """All that the result depends on."""
        return "support", content_of(self.support), tuple(map(content_of, self.queries)), self.labelling

    def run(self, service: SegmentService) -> dict[str, Any]:
        """Label it, and segment each query from it."""
        case = read_once(self.support)
        label, actions = self.labelling.label(case, service)
        study = service.studies.open(self.support.image)
        support = Support.learn(service.predictor, study, study.reorientation.to_canonical_array(label))
        return {
            "actions": actions,
            "label_dice": round(dice(label, case.truth), DIGITS),
            "query_dice": [round(_dice_from(service, support, query), DIGITS) for query in self.queries],
        }


def _dice_from(service: SegmentService, support: Support, query: CaseFiles) -> float:
    """Segment a query from the boxes that the support's memory calls up, as one request; 0 where it calls up none."""
    study, truth = service.studies.open(query.image), read_once(query).truth
    boxes = tuple(_boxes(study, support, service.predictor))
    if not boxes:
        return dice(np.zeros_like(truth), truth)
    prompts = PromptSet((ObjectPrompts(NAME, boxes=boxes),))
    axis = choose_axis(support.study.volume.geometry).name.lower()
    return dice(service.segment(SegmentRequest(query.image, prompts, axis=axis)).mask == 1, truth)


def _boxes(study: Study, support: Support, predictor: QueuedPredictor) -> Iterator[Box]:
    """Yield boxes as a client would send them; one of a single voxel is none."""
    axis = choose_axis(support.study.volume.geometry)
    for number, corners in sorted(support.prompt(predictor, study).items()):
        xy = corners.reshape(2, 2).round().astype(int)
        low, high = slice_to_source_ijk(study.reorientation, axis, n=number, xy=xy).tolist()
        if low != high:
            yield Box(tuple(low), tuple(high))
