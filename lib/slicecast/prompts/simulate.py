"""Simulates the annotator for training and benchmarks: the next click, a box, a roughly painted mask.

Pure functions on bool arrays; randomness comes in as `rng`. The click rule is that of the interactive SAM 2
studies: the point deepest inside the largest error ("pole of inaccessibility"); beyond the border is outside.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from slicecast.errors import PromptError

SEED_MIN_DEPTH_PX = 1.42
"""The published 2D protocol ignores errors that are nowhere deeper than this; pass it as `min_depth`."""


@dataclass(frozen=True, slots=True)
class Click:
    """A click in index order: (x, y) on a slice, (i, j, k) in a volume; `depth` is how far the error's edge is."""

    index: tuple[int, ...]
    positive: bool
    depth: float


def next_click(
    truth: np.ndarray,
    prediction: np.ndarray,
    *,
    rng: np.random.Generator | None = None,
    spacing: Sequence[float] | None = None,
    min_depth: float = 0.0,
) -> Click | None:
    """Choose where an annotator would click next, or None when no error is deeper than `min_depth`.

    The deepest point of what is missed gives a positive click, the deepest of what is too much a negative
    one; the deeper wins, positive on a tie.

    Args:
        truth: bool, (H, W) or [k, j, i].
        prediction: bool, same shape.
        rng: choose at random among equally deep points; None takes the first.
        spacing: distance of pixel centres in index order (x, y) or (i, j, k); depth is then in mm.
        min_depth: errors not deeper than this are left alone (SEED_MIN_DEPTH_PX repeats the published rule).

    Raises:
        PromptError: the shapes differ.
    """
    wanted, found = np.asarray(truth) != 0, np.asarray(prediction) != 0
    if wanted.shape != found.shape:
        raise PromptError(f"Truth of shape {wanted.shape} and prediction of shape {found.shape} must lie on one grid.")
    sampling = None if spacing is None else tuple(spacing)[::-1]
    missed = deepest_point(wanted & ~found, rng=rng, sampling=sampling)
    excess = deepest_point(~wanted & found, rng=rng, sampling=sampling)
    positive = missed[1] >= excess[1]
    place, depth = missed if positive else excess
    return Click(place[::-1], positive, depth) if depth > min_depth else None


def deepest_point(
    region: np.ndarray, *, rng: np.random.Generator | None = None, sampling: Sequence[float] | None = None
) -> tuple[tuple[int, ...], float]:
    """Find the point of a bool region that is farthest from its connected component's edge.

    Returns:
        its array index and its depth; depth 0 when the region is empty.
    """
    around = ndimage.find_objects(region.view(np.uint8))
    if not around:
        return (0,) * region.ndim, 0.0
    # Labelling a whole CT takes seconds; the box around its error does not.
    place, depth = _deepest(ndimage.label(region[around[0]])[0], rng, sampling)
    return tuple(int(n) + part.start for n, part in zip(place, around[0], strict=True)), depth


def _deepest(
    labels: np.ndarray, rng: np.random.Generator | None, sampling: Sequence[float] | None
) -> tuple[np.ndarray, float]:
    place, deepest = np.zeros(labels.ndim, dtype=np.int64), 0.0
    scale = np.ones(labels.ndim) if sampling is None else np.asarray(sampling, dtype=float)
    for number, window in _largest_first(labels):
        inside = np.pad(labels[window] == number, 1)
        if min((np.array(inside.shape) - 1) / 2 * scale) <= deepest:
            continue  # too thin to hold a deeper point
        depth = ndimage.distance_transform_edt(inside, sampling=sampling)
        if depth.max() > deepest:
            deepest = float(depth.max())
            ties = np.argwhere(depth == deepest) - 1
            place = ties[0 if rng is None else int(rng.integers(len(ties)))] + [part.start for part in window]
    return place, deepest


def box_from_mask(mask: np.ndarray, *, jitter_px: int = 0, rng: np.random.Generator | None = None) -> np.ndarray:
    """Box a slice's mask (H, W): float32 (4,) as x0, y0, x1, y1, corners included.

    With `jitter_px`, each side is moved by up to that many pixels, as a hasty annotator would; needs `rng`.

    Raises:
        PromptError: the mask is empty, or `rng` is missing.
    """
    places = np.argwhere(np.asarray(mask) != 0)[:, ::-1]
    if len(places) == 0:
        raise PromptError("An empty mask has no box. Choose a slice that shows the object.")
    corners = np.stack([places.min(axis=0), places.max(axis=0)])
    if jitter_px:
        if rng is None:
            raise PromptError("A jittered box needs a random generator. Pass rng=numpy.random.default_rng(seed).")
        corners = corners + rng.integers(-jitter_px, jitter_px + 1, size=corners.shape)
    corners = np.sort(np.clip(corners, 0, np.array(np.shape(mask))[::-1] - 1), axis=0)
    return corners.reshape(-1).astype(np.float32)


def noisy_mask(
    mask: np.ndarray, rng: np.random.Generator, *, amplitude_px: float = 2.0, smoothness_px: float = 6.0
) -> np.ndarray:
    """Repaint a mask (H, W) as a person would: its outline wanders smoothly by about `amplitude_px`.

    Returns:
        bool (H, W), never empty when `mask` is not.
    """
    inside = np.asarray(mask) != 0
    if not inside.any():
        return inside
    signed = ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)
    wander = ndimage.gaussian_filter(rng.standard_normal(inside.shape), smoothness_px)
    wander *= amplitude_px / max(float(wander.std()), 1e-12)
    repainted = signed + wander > 0
    near = signed > -3 * amplitude_px  # the outline wanders; no new blob appears far away
    return repainted & near if (repainted & near).any() else inside


def _largest_first(labels: np.ndarray) -> list[tuple[int, tuple[slice, ...]]]:
    windows = ndimage.find_objects(labels)
    sizes = np.bincount(labels.ravel(), minlength=len(windows) + 1)[1:]
    return [(int(n) + 1, windows[n]) for n in np.argsort(-sizes, kind="stable")]
