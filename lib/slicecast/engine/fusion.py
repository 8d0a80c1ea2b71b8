"""Join what tracks said: between two anchors by distance, between objects by logits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from slicecast.engine.crop_window import OUTSIDE_LOGIT
from slicecast.engine.ports import Observation


@dataclass(frozen=True, slots=True, eq=False)
class SliceAnswer:
    """What is known of one object on one slice.

    Args:
        logits: (m, m) float32 over the track's crop.
        predicted_iou: the model's own estimate in [0, 1].
        object_score: logit that the object is there.
        agreement: Dice of the two tracks that met here, 1 where there is only one.
        prompted: the annotator prompted this slice.
        fits: what the mask covers looks like what it covers on the track's anchor.
    """

    logits: NDArray[np.float32]
    predicted_iou: float
    object_score: float
    agreement: float = 1.0
    prompted: bool = False
    fits: bool = True

    @property
    def present(self) -> bool:
        """Whether the object is on the slice at all."""
        return self.fits and self.object_score > 0 and bool((self.logits > 0).any())

    @staticmethod
    def of(observation: Observation, *, prompted: bool = False) -> "SliceAnswer":
        """Keep an observation without its memory."""
        return SliceAnswer(observation.logits, observation.predicted_iou, observation.object_score, prompted=prompted)


FUSED_LIMIT = 20.0
"""Logits are clamped to this before they are averaged: SAM 2 writes -1024 for "not here"."""


def fuse_tracks(
    up: Mapping[int, SliceAnswer], down: Mapping[int, SliceAnswer], *, start: int, stop: int
) -> dict[int, SliceAnswer]:
    """Fuse the tracks between the anchors on slices ``start`` and ``stop``, weighted by nearness.

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
    """Average two tracks' answers on a slice; ``weight`` in [0, 1] is the second one's."""

    def mean(a: npt.ArrayLike, b: npt.ArrayLike) -> NDArray[np.float32]:
        pair = np.clip(np.array([a, b], dtype=np.float32), -FUSED_LIMIT, FUSED_LIMIT)
        return (1 - weight) * pair[0] + weight * pair[1]

    return SliceAnswer(
        logits=mean(first.logits, second.logits),
        predicted_iou=float(mean(first.predicted_iou, second.predicted_iou)),
        object_score=float(mean(first.object_score, second.object_score)),
        agreement=dice(first.logits > 0, second.logits > 0),
    )


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
