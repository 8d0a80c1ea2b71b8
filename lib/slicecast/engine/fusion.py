"""Join the answers of tracks between two anchors, painted shapes between two slices, and objects by their logits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from slicecast.engine.crop_window import OUTSIDE_LOGIT
from slicecast.engine.ports import Observation


@dataclass(frozen=True, slots=True, eq=False)
class SliceAnswer:
    """What is known of one object on one slice."""

    logits: NDArray[np.float32]  # (m, m) float32 over the track's crop
    predicted_iou: float  # the model's own estimate in [0, 1]
    object_score: float  # logit that the object is there
    agreement: float = 1.0  # Dice of the two tracks that met here, 1 where there is only one
    prompted: bool = False  # the annotator prompted this slice
    fits: bool = True  # what the mask covers looks like what it covers on the track's anchor
    bridged: bool = False  # both tracks lost the object between two painted slices; their shapes say where it is

    @property
    def present(self) -> bool:
        """Whether the object is on the slice at all."""
        return self.bridged or (self.fits and self.object_score > 0 and bool((self.logits > 0).any()))

    @staticmethod
    def of(observation: Observation, *, prompted: bool = False) -> "SliceAnswer":
        """Keep an observation without its memory."""
        return SliceAnswer(observation.logits, observation.predicted_iou, observation.object_score, prompted=prompted)


FUSED_LIMIT = 20.0  # Logits are clamped to this before they are compared: SAM 2 writes -1024 for "not here"

FAR_PENALTY = 6.0
"""What the farther track's logits lose beside the other's anchor; halfway between the anchors they lose nothing."""

PRIOR_LOGIT = 5.0
"""Logit for each pixel of distance from the interpolated outline, on the slice beside a painted one, where it is fully
trusted; half of it two slices away, a third three slices away."""

PRIOR_LIMIT_PX = 8.0  # Farther than this from the interpolated outline, inside or outside, the prior grows no more


def fuse_tracks(
    up: Mapping[int, SliceAnswer], down: Mapping[int, SliceAnswer], *, start: int, stop: int
) -> dict[int, SliceAnswer]:
    """Fuse the tracks between the anchors on slices ``start`` and ``stop``, the nearer one leading.

    A slice that only one track reached takes that track's answer.
    """
    fused = {}
    for number in range(start + 1, stop):
        first, second = up.get(number), down.get(number)
        if first is None or second is None:
            only = first or second
            if only is not None:
                fused[number] = only
            continue
        fused[number] = mix(first, second, weight=(number - start) / (stop - start))
    return fused


def mix(first: SliceAnswer, second: SliceAnswer, *, weight: float) -> SliceAnswer:
    """Fuse two tracks' answers on a slice; ``weight`` in [0, 1] is the second one's nearness.

    An absent track never erases a present one: it has lost the object on its way, and the other still has it.
    Where both are present a pixel takes the larger logit, the farther track's reduced. Both absent: no object here;
    between painted slices their shapes then say where it is (``bridged``).
    """
    agreement = dice(first.logits > 0, second.logits > 0)
    if first.present != second.present:
        kept = first if first.present else second
        return replace(kept, logits=_clamped(kept.logits), agreement=agreement)
    penalty = FAR_PENALTY * (2 * weight - 1)
    return SliceAnswer(
        logits=np.maximum(
            _clamped(first.logits) - np.float32(max(penalty, 0.0)),
            _clamped(second.logits) - np.float32(max(-penalty, 0.0)),
        ).clip(-FUSED_LIMIT),
        predicted_iou=_mean(first.predicted_iou, second.predicted_iou, weight),
        object_score=_mean(first.object_score, second.object_score, weight),
        agreement=agreement,
    )


@dataclass(frozen=True, slots=True, eq=False)
class ShapeBetween:
    """A shape interpolated between two painted slices."""

    distance: NDArray[np.float32]  # (H, W) float32, pixels from the outline, positive inside
    alike: float  # Dice of the two painted shapes, centre upon centre: how much an interpolation can know

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Return the shape, (H, W) bool."""
        return self.distance > 0

    def logits(self, *, slices_away: int, trust: float) -> NDArray[np.float32]:
        """Return what a slice owes to the shape, so many slices from the nearer painted one; ``trust`` in [0, 1]."""
        pixels = self.distance.clip(-PRIOR_LIMIT_PX, PRIOR_LIMIT_PX)
        return (PRIOR_LOGIT * self.alike * trust / slices_away * pixels).astype(np.float32)


def interpolate_shape(
    low: NDArray[np.bool_], high: NDArray[np.bool_], *, weight: float, spacing_yx: tuple[float, float] = (1.0, 1.0)
) -> ShapeBetween:
    """Interpolate the shape between two painted slices by their signed distances.

    Both shapes are shifted so that their centres lie on the line between them: an object that moves by more than its
    width would otherwise vanish halfway.

    Args:
        low: (H, W) bool, not empty.
        high: (H, W) bool, not empty.
        weight: place between them, 0 at ``low`` and 1 at ``high``.
        spacing_yx: size of a pixel in mm; the distance is in pixels of the same area.
    """
    centres = [np.array(ndimage.center_of_mass(mask)) for mask in (low, high)]
    middle = (1 - weight) * centres[0] + weight * centres[1]
    first, second = (
        ndimage.shift(_signed_distance(mask, spacing_yx), middle - centre, order=1, mode="nearest")
        for mask, centre in zip((low, high), centres, strict=True)
    )
    distance = ((1 - weight) * first + weight * second) / np.sqrt(np.prod(spacing_yx))
    return ShapeBetween(distance.astype(np.float32), dice(first > 0, second > 0))


def _clamped(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return logits.clip(-FUSED_LIMIT, FUSED_LIMIT).astype(np.float32)


def _mean(first: float, second: float, weight: float) -> float:
    first, second = (min(max(value, -FUSED_LIMIT), FUSED_LIMIT) for value in (first, second))
    return (1 - weight) * first + weight * second


def _signed_distance(mask: NDArray[np.bool_], spacing_yx: tuple[float, float]) -> NDArray[np.float64]:
    inside, outside = (ndimage.distance_transform_edt(m, sampling=spacing_yx) for m in (mask, ~mask))
    return inside - outside


def dice(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Return the Dice of two masks; 1 when both are empty."""
    total = int(first.sum()) + int(second.sum())
    return 1.0 if total == 0 else 2.0 * int((first & second).sum()) / total


def label_slice(logits: Sequence[NDArray[np.float32]]) -> NDArray[np.uint8]:
    """Give each pixel to the object of the largest positive logit.

    Args:
        logits: one (H, W) array an object, in the order of their labels 1, 2, ...

    Returns:
        (H, W) uint8, 0 where no logit is positive.
    """
    if len(logits) == 1:
        return (logits[0] > 0).astype(np.uint8)
    best, label = np.zeros_like(logits[0]), np.zeros(logits[0].shape, dtype=np.uint8)
    for value, own in enumerate(logits, start=1):
        label[own > best] = value
        np.maximum(best, own, out=best)
    return label


def exact_logits(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Turn a mask that a person painted into logits that no model outvotes."""
    return np.where(mask, np.float32(np.inf), np.float32(OUTSIDE_LOGIT))
