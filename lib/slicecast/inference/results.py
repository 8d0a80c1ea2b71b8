"""What comes back from segmenting an image, on the grid as stored."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicecast.active.calibration import SliceFeatures
from slicecast.active.slices import Question
from slicecast.volume import Geometry, Window


@dataclass(frozen=True, slots=True)
class SliceConfidence:
    """How sure the model is of a slice (counted as stored).

    Args:
        value: expected IoU where the result is calibrated; else an order and no more.
        features: what it was judged by; None where the slice was prompted.
    """

    slice: int
    value: float
    features: SliceFeatures | None = None


@dataclass(frozen=True, slots=True)
class NextSlice:
    """The slice worth annotating next, counted as stored along the axis, and why.

    Args:
        score: the strategy's own measure; larger is more worth a look.
        strategy: that chose it.
        question: `outline`: correct the outline; `present`: only say whether the object is there.
    """

    slice: int
    axis: str
    reason: str
    score: float
    strategy: str = ""
    question: Question = "outline"


@dataclass(frozen=True, slots=True)
class StoppedAt:
    """Where an object's walk ended before the volume, its range or the next prompted slice did.

    Args:
        object: its name.
        slice: the last slice that was answered, counted as stored.
        reason: ``gone``: the object is not there any more.
    """

    object: str
    slice: int
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class SliceUpdate:
    """One object on one slice, as soon as it is known.

    Args:
        slice: counted as stored along the slice axis.
        object: its name.
        mask: bool (H, W), the plane of the stored array [k, j, i] at that slice. Not yet tidied: the result is.
        confidence: in [0, 1], an order, not a probability.
        seconds: since the request began.
        reused: it was known from an earlier request.
        final: False where a second lane is still to come.
    """

    slice: int
    object: str
    mask: NDArray[np.bool_]
    confidence: float
    seconds: float
    reused: bool = False
    final: bool = True


OnSlice = Callable[[SliceUpdate], None]


@dataclass(frozen=True, slots=True, eq=False)
class SegmentResult:
    """A segmented image.

    Args:
        mask: uint8 [k, j, i] on the stored grid; 1.. in the order of the prompts' objects.
        geometry: the stored grid.
        labels: object name to value.
        confidence: for every slice a lane reached.
        next_slice: None where no slice is worth a look.
        seconds: read, encode (part of propagate), propagate, post, total.
        warnings: what the user should know about the image.
        axis: along which it was sliced.
        window: the window used.
        slices_encoded: slices that were not in the cache.
        slices_walked: slices answered, over all objects.
        slices_recomputed: answers that the model was asked for.
        slices_reused: answers known from earlier requests.
        stopped: where walks ended early.
        partial: the work was cancelled; what was done by then is here.
        calibrated: the confidence was fitted to submitted labels.
        good_enough: why no slice is worth a look; empty where one is.
    """

    mask: NDArray[np.uint8]
    geometry: Geometry
    labels: dict[str, int]
    confidence: tuple[SliceConfidence, ...]
    next_slice: NextSlice | None
    seconds: dict[str, float]
    warnings: tuple[str, ...] = ()
    axis: str = "axial"
    window: Window | None = None
    slices_encoded: int = 0
    slices_walked: int = 0
    slices_recomputed: int = 0
    slices_reused: int = 0
    stopped: tuple[StoppedAt, ...] = ()
    partial: bool = False
    calibrated: bool = False
    good_enough: str = ""


def slice_counts(result: SegmentResult) -> dict[str, Any]:
    """Return what a result cost, and where walks ended, as JSON values."""
    return {
        "recomputed": result.slices_recomputed,
        "reused": result.slices_reused,
        "encoded": result.slices_encoded,
        "stopped": [asdict(entry) for entry in result.stopped],
        "partial": result.partial,
    }


def voxel_counts(mask: NDArray[np.uint8], *, least: int) -> NDArray[np.int64]:
    """Count the voxels of each value; slice by slice, because counting needs eight bytes a voxel.

    Args:
        mask: uint8 [k, j, i].
        least: number of values to count at least.
    """
    counts = np.zeros(max(256, least), dtype=np.int64)
    for plane in mask:
        found = np.bincount(plane.ravel())
        counts[: len(found)] += found
    return counts
