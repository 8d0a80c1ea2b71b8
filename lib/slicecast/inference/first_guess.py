"""A volumetric model answers an object's clicks first; the slices it is surest of become painted slices of SAM 2's.

That is for objects that are clicked only: whoever paints, boxes or draws a line says more than the first guess knows,
and SAM 2 answers alone. A voxel that was clicked is as the annotator said, and absent slices stay empty.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from slicecast.engine.tracks import Progress
from slicecast.errors import Conflict
from slicecast.inference.results import OnSlice, SegmentResult, SliceConfidence
from slicecast.inference.segment import SegmentRequest, SegmentService
from slicecast.inference.studies import Study
from slicecast.inference.volumetric import VolumetricService
from slicecast.prompts import Absent, MaskPrompt, ObjectPrompts, Point, PromptSet, standing_points
from slicecast.volume import SliceAxis, SliceStack, choose_axis

GUESSED = 2  # Slices of the first guess that SAM 2 is given
LEAST_AREA = 0.5  # Such a slice shows at least this share of the object's largest area
LEAST_APART = 3  # Slices between two of them, at least


@dataclass(frozen=True, slots=True, eq=False)
class GuessedPrompts:
    """What SAM 2 is told of one object."""

    prompts: ObjectPrompts
    painted: tuple[SliceConfidence, ...] = ()  # the slices that the network painted, and how sure it is of them


class GuidedService:
    """SAM 2 from the slices that a volumetric network is surest of; shares SAM 2's images and queue.

    Args:
        sam2: answers what the annotator asks.
        network: makes the first guess.
    """

    def __init__(self, sam2: SegmentService, network: VolumetricService) -> None:
        self._sam2, self._network = sam2, network
        self.studies, self.settings, self.queue = sam2.studies, sam2.settings, sam2.queue

    @property
    def model_name(self) -> str:
        """Both models' names."""
        return f"{self._sam2.model_name}+{self._network.model_name}"

    def fingerprint_of(self, name: str = "") -> str:
        """Say which weights answer; see `Segmenter`."""
        return f"{self._sam2.fingerprint_of(_version(name))}+{self._network.fingerprint_of()}"

    def model_for(self, name: str | None) -> str:
        """Return SAM 2's version that answers, with the network's name; see `Segmenter`."""
        asked, _, network = (name or self.model_name).partition("+")
        if network != self._network.model_name:
            raise Conflict(f"The session asks for '{name}'; this service runs '{self.model_name}'.")
        return f"{self._sam2.model_for(asked)}+{network}"

    def segment(
        self,
        request: SegmentRequest,
        *,
        study: Study | None = None,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
        on_slice: OnSlice | None = None,
        keep_partial: bool = False,
    ) -> SegmentResult:
        """Segment an image as requested; see `SegmentService.segment`."""
        start = time.perf_counter()
        study = study or self.studies.open(request.image)
        guesses: list[GuessedPrompts] = []
        if not request.slices_only:
            guesses = [self._guess(entry, request, study, cancelled) for entry in request.prompts.objects]
        prompts = PromptSet(tuple(guess.prompts for guess in guesses)) if guesses else request.prompts
        guided = replace(request, prompts=prompts, model=_version(request.model))
        result = self._sam2.segment(
            guided, study=study, progress=progress, cancelled=cancelled, on_slice=on_slice, keep_partial=keep_partial
        )
        seconds = {**result.seconds, "total": time.perf_counter() - start}
        return replace(result, confidence=_no_surer(result.confidence, guesses), seconds=seconds)

    def _guess(
        self, given: ObjectPrompts, request: SegmentRequest, study: Study, cancelled: Callable[[], bool] | None
    ) -> GuessedPrompts:
        """Return an object's prompts, with the surest slices of the network's answer painted."""
        if given.boxes or given.lines or any(mask.array.any() for mask in given.masks):
            return GuessedPrompts(given)
        alone = replace(request, prompts=PromptSet((given,)))
        guess = self._network.segment(alone, study=study, cancelled=cancelled)
        axis = choose_axis(study.volume.geometry, request.axis)
        points = standing_points(given, study.reorientation, axis)
        mask = _as_said(guess.mask == 1, points)
        chosen = _surest(guess, SliceStack(study.reorientation.to_canonical_array(mask), axis), study)
        if not chosen:
            return GuessedPrompts(given)
        free = tuple(point for point in points if _stored_slice(point, study, axis) not in chosen)
        wiped = [Absent(number) for empty in given.masks for number in empty.slices or ()]
        absent = tuple(dict.fromkeys((*given.absent, *wiped)))
        painted = replace(given, points=free, absent=absent, masks=(MaskPrompt(mask, slices=tuple(chosen)),))
        return GuessedPrompts(painted, tuple(entry for entry in guess.confidence if entry.slice in chosen))


def _version(name: str) -> str:
    """Return which SAM 2 both names ask for."""
    return name.partition("+")[0]


def _no_surer(confidence: Sequence[SliceConfidence], guesses: Sequence[GuessedPrompts]) -> tuple[SliceConfidence, ...]:
    """Return the confidence with guessed slices as sure as the guess: SAM 2 takes them for painted by a person."""
    least: dict[int, float] = {}
    for entry in (entry for guess in guesses for entry in guess.painted):
        least[entry.slice] = min(entry.value, least.get(entry.slice, 1.0))
    return tuple(replace(c, value=min(c.value, least.get(c.slice, 1.0))) for c in confidence)


def _surest(guess: SegmentResult, stack: SliceStack, study: Study) -> list[int]:
    """Return the stored slices that the network is surest of."""
    areas = {
        c.slice: np.count_nonzero(stack.slice(study.reorientation.to_canonical_slice(stack.axis, c.slice)))
        for c in guess.confidence
    }
    chosen: list[int] = []
    for entry in sorted(guess.confidence, key=lambda c: -c.value):
        large = areas[entry.slice] >= max(LEAST_AREA * max(areas.values()), 1)
        if large and len(chosen) < GUESSED and all(abs(entry.slice - other) >= LEAST_APART for other in chosen):
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
