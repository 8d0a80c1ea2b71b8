"""Draws what a volumetric model found onto the scan's own grid, and what the annotator said over it."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from slicecast.active.slices import SliceEvidence
from slicecast.engine.postprocess import keep_connected
from slicecast.engine.volumetric import FAR_LOGIT, ObjectField
from slicecast.inference.studies import Study
from slicecast.prompts import SlicePrompt
from slicecast.volume import Geometry, SliceAxis, SliceStack
from slicecast.volume.isotropic import part_of, resample

Prompts = Mapping[str, Sequence[SlicePrompt]]


class LabelCanvas:
    """Labels of all objects on the canonical grid; 1.. in the order in which they are drawn.

    Args:
        study: the scan.
        axis: of its slices.
        grid: the isotropic grid of the fields.
    """

    def __init__(self, study: Study, axis: SliceAxis, grid: Geometry) -> None:
        self._study, self._grid = study, grid
        self.labels = np.zeros(study.volume.array.shape, dtype=np.uint8)
        self._best = np.zeros(self.labels.shape, dtype=np.float16)  # the logit of each voxel's label
        self.slices = SliceStack(self.labels, axis)
        self._logits = SliceStack(self._best, axis)

    def draw(self, value: int, field: ObjectField, *, limits: tuple[int, int]) -> None:
        """Give an object the voxels where its logits are above 0 and above the others', within its slices."""
        place, logits = self._on_scan(field)
        best, labels = self._best[place], self.labels[place]
        mine = logits > best
        best[mine], labels[mine] = logits[mine].astype(np.float16), value
        for number in {*range(self.slices.count)} - {*range(*limits)}:
            plane = self.slices.slice(number)
            plane[plane == value] = 0

    def _on_scan(self, field: ObjectField) -> tuple[tuple[slice, ...], NDArray[np.float32]]:
        """Return the box of the scan that a field covers, and its logits there."""
        part, scan = part_of(self._grid, field.start, _shape(field)), self._study.reorientation.geometry
        ends = np.stack(np.meshgrid(*((0, n - 1) for n in part.size_ijk), indexing="ij"), axis=-1).reshape(-1, 3)
        corners = scan.world_to_index(part.index_to_world(ends))[:, ::-1]
        low = np.clip(np.floor(corners.min(axis=0)), 0, np.array(self.labels.shape) - 1).astype(int)
        high = np.clip(np.ceil(corners.max(axis=0)) + 1, low + 1, self.labels.shape).astype(int)
        target = part_of(scan, tuple(low.tolist()), tuple((high - low).tolist()))
        logits = resample(part.to_image(field.logits), target, outside=FAR_LOGIT)
        return tuple(slice(a, b) for a, b in zip(low, high, strict=True)), logits

    def keep_clicked(self, prompts: Prompts) -> None:
        """Keep, of each object, the parts that hold a painted pixel or a positive click."""
        for value, given in enumerate(prompts.values(), start=1):
            seeds = SliceStack(np.zeros(self.labels.shape, dtype=bool), self.slices.axis)
            for prompt in given:
                _say(seeds.slice(prompt.slice), prompt, 1)
            mask = self.labels == value
            self.labels[mask & ~keep_connected(mask, seeds.array)] = 0

    def say(self, prompts: Prompts) -> None:
        """Draw what the annotator said over all else; the object that comes last wins."""
        for value, given in enumerate(prompts.values(), start=1):
            for prompt in given:
                plane = self.slices.slice(prompt.slice)
                if prompt.absent or prompt.mask is not None:
                    plane[plane == value] = 0
                _say(plane, prompt, value)

    def evidence(self, value: int, given: Sequence[SlicePrompt], predicted_iou: float) -> SliceEvidence:
        """Return each slice's quality (mean probability inside the mask times predicted IoU), area and state."""
        count = self.slices.count
        quality, areas = np.full(count, np.nan), np.zeros(count)
        for number in range(count):
            mask = self.slices.slice(number) == value
            areas[number] = np.count_nonzero(mask)
            if areas[number]:
                logits = self._logits.slice(number)[mask].astype(np.float32)
                quality[number] = float((1 / (1 + np.exp(-logits))).mean()) * float(np.clip(predicted_iou, 0, 1))
        annotated, absent = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
        for prompt in given:
            annotated[prompt.slice], absent[prompt.slice] = True, prompt.absent
        return SliceEvidence(quality, areas, np.full(count, np.nan), annotated, absent)


def _shape(field: ObjectField) -> tuple[int, int, int]:
    k, j, i = field.logits.shape
    return k, j, i


def _say(plane: NDArray, prompt: SlicePrompt, value: int) -> None:
    """Draw a slice's paint and clicks; a negative click takes its pixel from this object only."""
    if prompt.mask is not None:
        plane[prompt.mask] = value
    for (x, y), positive in zip(prompt.points_xy.astype(int).tolist(), prompt.labels.tolist(), strict=True):
        if positive:
            plane[y, x] = value
        elif plane[y, x] == value:
            plane[y, x] = 0
