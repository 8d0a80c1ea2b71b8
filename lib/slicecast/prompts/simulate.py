"""Simulates the annotator's next click.

The rule is that of the interactive SAM 2 studies: the point deepest inside the largest error ("pole of
inaccessibility"); beyond the border is outside.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from slicecast.errors import PromptError


@dataclass(frozen=True, slots=True)
class Click:
    """A click in index order: (x, y) on a slice, (i, j, k) in a volume; `depth` is how far the error's edge is."""

    index: tuple[int, ...]
    positive: bool
    depth: float


def next_click(truth: np.ndarray, prediction: np.ndarray, *, spacing: Sequence[float] | None = None) -> Click | None:
    """Choose where an annotator would click next, or None when there is no error.

    The deepest point of what is missed gives a positive click, the deepest of what is too much a negative
    one; the deeper wins, positive on a tie.

    Args:
        truth: bool, (H, W) or [k, j, i].
        prediction: bool, same shape.
        spacing: distance of pixel centres in index order (x, y) or (i, j, k); depth is then in mm.

    Raises:
        PromptError: the shapes differ.
    """
    wanted, found = np.asarray(truth) != 0, np.asarray(prediction) != 0
    if wanted.shape != found.shape:
        raise PromptError(f"Truth of shape {wanted.shape} and prediction of shape {found.shape} must lie on one grid.")
    sampling = None if spacing is None else tuple(spacing)[::-1]
    missed, excess = (deepest_point(error, sampling=sampling) for error in (wanted & ~found, ~wanted & found))
    positive = missed[1] >= excess[1]
    place, depth = missed if positive else excess
    return Click(place[::-1], positive, depth) if depth > 0 else None


def deepest_point(region: np.ndarray, *, sampling: Sequence[float] | None = None) -> tuple[tuple[int, ...], float]:
    """Find the point of a bool region that is farthest from its connected component's edge; the first of equals.

    Returns:
        its array index and its depth; depth 0 when the region is empty.
    """
    around = ndimage.find_objects(region.view(np.uint8))
    if not around:
        return (0,) * region.ndim, 0.0
    # Labelling a whole CT takes seconds; the box around its error does not.
    place, depth = _deepest(ndimage.label(region[around[0]])[0], sampling)
    return tuple(int(n) + part.start for n, part in zip(place, around[0], strict=True)), depth


def _deepest(labels: np.ndarray, sampling: Sequence[float] | None) -> tuple[np.ndarray, float]:
    place, deepest = np.zeros(labels.ndim, dtype=np.int64), 0.0
    scale = np.ones(labels.ndim) if sampling is None else np.asarray(sampling, dtype=float)
    for number, window in _largest_first(labels):
        inside = np.pad(labels[window] == number, 1)
        if min((np.array(inside.shape) - 1) / 2 * scale) <= deepest:
            continue  # too thin to hold a deeper point
        depth = ndimage.distance_transform_edt(inside, sampling=sampling)
        if depth.max() > deepest:
            deepest = float(depth.max())
            place = np.argwhere(depth == deepest)[0] - 1 + [part.start for part in window]
    return place, deepest


def _largest_first(labels: np.ndarray) -> list[tuple[int, tuple[slice, ...]]]:
    windows = ndimage.find_objects(labels)
    sizes = np.bincount(labels.ravel(), minlength=len(windows) + 1)[1:]
    return [(int(n) + 1, windows[n]) for n in np.argsort(-sizes, kind="stable")]
