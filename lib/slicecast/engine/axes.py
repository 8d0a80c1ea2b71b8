"""Weigh in what further slice axes say of an object (after SAM3D, Chan et al., arXiv 2405.06786).

Along every axis the object is propagated by itself. The probabilities are averaged; how much a further axis counts is
ours: as much as its mask is like the first axis's (Dice), and less if it is smaller, because a track that ended too
early knows nothing of what lies beyond. So a long, thin organ, which other axes lose at once, stays as it was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from slicecast.engine.crop_window import OUTSIDE_LOGIT
from slicecast.engine.fusion import FUSED_LIMIT
from slicecast.engine.postprocess import extent, label_slices, object_logits
from slicecast.engine.propagation import Segmentation
from slicecast.engine.tracks import Tracker
from slicecast.volume import SliceStack
from slicecast.volume.metrics import dice

Extent = tuple[slice, ...]
Logits = NDArray[np.float32]

LEAST = np.float32(1e-6)  # Probabilities are at least so far from 0 and 1, so that their logits are finite


@dataclass(frozen=True, slots=True, eq=False)
class AxisAnswer:
    """What was found along one axis."""

    stack: SliceStack  # the canonical scan along it
    tracker: Tracker
    found: Segmentation

    @property
    def place(self) -> int:
        """The array's axis along which its slices are counted."""
        return 2 - self.stack.axis

    def mask(self, name: str) -> NDArray[np.bool_]:
        """Return an object's mask [k, j, i] on the canonical grid; empty where it was not asked for."""
        value = [*self.found.objects].index(name) + 1 if name in self.found.objects else None
        return self.stack.assemble({n: label == value for n, label in self.found.labels.items()}, dtype=np.bool_)

    def probability(self, name: str, box: Extent) -> NDArray[np.float32]:
        """Return the probability of an object inside a box of the canonical grid [k, j, i]."""
        logits = np.empty([part.stop - part.start for part in box], dtype=np.float32)
        stack, result = SliceStack(logits, self.stack.axis), self.found.objects[name]
        plane = _plane(box, self.place)
        for n in range(stack.count):
            stack.slice(n)[...] = object_logits(self.tracker, result, box[self.place].start + n)[plane]
        return 1 / (1 + np.exp(-logits.clip(-FUSED_LIMIT, FUSED_LIMIT)))


def weigh_in(
    first: AxisAnswer, further: Sequence[AxisAnswer], *, limits: Mapping[str, tuple[int, int]]
) -> Segmentation:
    """Return the first axis's answer with the labels that all axes together give.

    Painted and absent slices, slices beyond an object's limits, and voxels that were clicked stay as they were said to
    be; so do objects that no further axis shows.

    Args:
        limits: half-open range of the first axis's slices for each object.
    """
    objects = {
        name: replace(result, fused={**result.fused, **_fused(name, first, further, limits[name])})
        for name, result in first.found.objects.items()
    }
    return replace(first.found, objects=objects, labels=label_slices(first.tracker, objects))


def _fused(name: str, first: AxisAnswer, further: Sequence[AxisAnswer], limits: tuple[int, int]) -> dict[int, Logits]:
    """Return an object's logits (H, W) by slice of the first axis, on the slices where a further axis counts."""
    own = first.mask(name)
    masks = [(answer, answer.mask(name)) for answer in further]
    heard = [(answer, mask, weight) for answer, mask in masks if (weight := weight_of(own, mask)) > 0]
    if not heard:
        return {}
    box = extent(np.logical_or.reduce([own, *(mask for _, mask, _ in heard)]))
    assert box is not None  # what counts is not empty
    total = first.probability(name, box)
    for answer, _, weight in heard:
        total += np.float32(weight) * answer.probability(name, box)
    probability = (total / np.float32(1 + sum(weight for *_, weight in heard))).clip(LEAST, 1 - LEAST)
    return _by_slice(first, name, np.log(probability / (1 - probability)), box, limits)


def weight_of(first: NDArray[np.bool_], further: NDArray[np.bool_]) -> float:
    """Return how much a further axis's mask counts where the first axis's counts 1."""
    voxels = np.count_nonzero(first)
    return dice(first, further) * min(1.0, np.count_nonzero(further) / voxels) if voxels else 0.0


def _by_slice(first: AxisAnswer, name: str, logits: Logits, box: Extent, limits: tuple[int, int]) -> dict[int, Logits]:
    """Spread a box of logits over whole slices of the first axis."""
    told = {p.slice for p in first.found.objects[name].prompts if p.absent or p.mask is not None}
    fused = {}
    for n, pixels in enumerate(np.moveaxis(logits, first.place, 0), start=box[first.place].start):
        if limits[0] <= n < limits[1] and n not in told:
            fused[n] = np.full(first.stack.shape_hw, OUTSIDE_LOGIT, dtype=np.float32)
            fused[n][_plane(box, first.place)] = pixels
    return fused


def _plane(box: Extent, place: int) -> Extent:
    """Return a box's rows and columns on the slices counted along that axis of the array."""
    return box[:place] + box[place + 1 :]
