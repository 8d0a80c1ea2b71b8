"""A volumetric network answers clicks on one object; its surest slices become painted slices of SAM 2's.

A voxel that was clicked is as the annotator said.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from slicecast.inference.results import SegmentResult
from slicecast.inference.segment import SegmentRequest, SegmentService
from slicecast.inference.studies import Study
from slicecast.inference.volumetric import VolumetricService
from slicecast.prompts import MaskPrompt, Point, PromptSet
from slicecast.volume import SliceAxis, SliceStack, choose_axis

ANCHORS = 2  # Slices of the network's that SAM 2 is given
LEAST_AREA = 0.5  # Such a slice shows at least this share of the object's largest area
LEAST_APART = 3  # Slices between two of them, at least


@dataclass(frozen=True, slots=True, eq=False)
class Anchored:
    """SAM 2 from the slices that a volumetric network is surest of."""

    sam2: SegmentService
    network: VolumetricService

    def segment(self, request: SegmentRequest) -> SegmentResult:
        """Answer clicks; see the module."""
        start = time.perf_counter()
        guess = self.network.segment(request)
        study = self.sam2.studies.open(request.image)
        axis = choose_axis(study.volume.geometry, request.axis)
        (given,) = request.prompts.objects
        mask = _as_said(guess.mask == 1, given.points)
        chosen = tuple(_surest(guess, study.reorientation.to_canonical_array(mask), study, axis))
        if chosen:
            clicked = {p: _stored_slice(p, study, axis) for p in given.points}
            free = tuple(p for p, number in clicked.items() if number not in chosen)
            given = replace(given, points=free, masks=(MaskPrompt(mask, slices=chosen),))
        result = self.sam2.segment(replace(request, prompts=PromptSet((given,))))
        return replace(result, seconds={**result.seconds, "total": time.perf_counter() - start})


def _surest(guess: SegmentResult, mask: NDArray[np.bool_], study: Study, axis: SliceAxis) -> list[int]:
    """Return the stored slices that the network is surest of."""
    stack = SliceStack(mask, axis)
    areas = {
        c.slice: np.count_nonzero(stack.slice(study.reorientation.to_canonical_slice(axis, c.slice)))
        for c in guess.confidence
    }
    chosen: list[int] = []
    for entry in sorted(guess.confidence, key=lambda c: -c.value):
        large = areas[entry.slice] >= max(LEAST_AREA * max(areas.values()), 1)
        if large and len(chosen) < ANCHORS and all(abs(entry.slice - other) >= LEAST_APART for other in chosen):
            chosen.append(entry.slice)
    return chosen


def _as_said(mask: NDArray[np.bool_], points: Sequence[Point]) -> NDArray[np.bool_]:
    said = mask.copy()
    for point in points:
        said[point.ijk[::-1]] = point.positive
    return said


def _stored_slice(point: Point, study: Study, axis: SliceAxis) -> int:
    number = int(axis.to_slice(study.reorientation.to_canonical_ijk(point.ijk))[0])
    return study.reorientation.to_source_slice(axis, number)
