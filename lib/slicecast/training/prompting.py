"""Prompts as users give them, for batches of true masks on torch tensors.

Coordinates are (x, y) in input pixels, integers at pixel centres.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from slicecast.models.sam2_forward import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, NEGATIVE, POSITIVE

ERROR_PX = 64
"""Errors are searched on a raster of at most this side; clicks need no more."""

CENTRE_SHARE = 0.5
"""Share of first clicks at the object's deepest point; the others fall anywhere, mostly deep inside."""

MOVED_SHIFT, MOVED_SCALE = 0.08, 0.1
"""Standard deviation of a carried answer's shift, in halves of the frame, and of the logarithm of its scale."""


def first_clicks(rng: np.random.Generator, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return one positive click a row: points (B, 1, 2) float32 and labels (B, 1) int32.

    Args:
        masks: (B, S, S) bool, none empty.
    """
    points = _points([_inside(rng, mask) for mask in masks.numpy(force=True)], masks)
    return points, torch.full((len(masks), 1), POSITIVE, dtype=torch.int32, device=masks.device)


def corrective_clicks(predicted: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return one click a row at the pole of the largest error: positive where something is missing.

    Args:
        predicted: (B, S, S) bool.
        masks: (B, S, S) bool.
    """
    step = max(1, masks.shape[-1] // ERROR_PX)
    wrong, truth = (predicted != masks).numpy(force=True), masks.numpy(force=True)
    poles = [_pole(w[::step, ::step]) * step for w in wrong]
    labels = [POSITIVE if t[int(y), int(x)] else NEGATIVE for t, (x, y) in zip(truth, poles, strict=True)]
    return _points(poles, masks), torch.tensor(labels, dtype=torch.int32, device=masks.device)[:, None]


def boxes(rng: np.random.Generator, masks: Tensor, *, jitter: float = 0.05) -> tuple[Tensor, Tensor]:
    """Return a box a row as two points (B, 2, 2) with their labels; corners are off by `jitter` of the side."""
    corners = []
    for mask in masks.numpy(force=True):
        rows, columns = np.nonzero(mask)
        low = np.array([columns.min(), rows.min()], dtype=np.float64)
        high = np.array([columns.max(), rows.max()], dtype=np.float64)
        slack = jitter * (high - low + 1)
        corners.append([low + rng.normal(0, slack), high + rng.normal(0, slack)])
    points: NDArray[np.float64] = np.clip(np.array(corners), 0, masks.shape[-1] - 1)
    labels = torch.tensor([[BOX_TOP_LEFT, BOX_BOTTOM_RIGHT]], dtype=torch.int32, device=masks.device)
    return _points(points, masks), labels.expand(len(masks), 2)


def moved(rng: np.random.Generator, logits: Tensor, *, share: float) -> Tensor:
    """Return logits (B, 1, m, m), a share of them shifted and scaled by a few percent of the frame."""
    chosen = rng.random(len(logits)) < share
    if not chosen.any():
        return logits
    shift, scale = rng.normal(0, MOVED_SHIFT, (len(logits), 2)), np.exp(rng.normal(0, MOVED_SCALE, (len(logits), 2)))
    theta = np.zeros((len(logits), 2, 3), dtype=np.float32)
    theta[:, [0, 1], [0, 1]] = np.where(chosen[:, None], scale, 1)
    theta[:, :, 2] = np.where(chosen[:, None], shift, 0)
    grid = F.affine_grid(torch.from_numpy(theta).to(logits), list(logits.shape), align_corners=False)
    out = F.grid_sample(logits, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return torch.where(torch.from_numpy(chosen).to(logits.device)[:, None, None, None], out, logits)


def noisy_masks(rng: np.random.Generator, masks: Tensor, *, share: float) -> Tensor:
    """Return masks (B, S, S), a share of them with a wobbly outline as drawn in a hurry; none becomes empty."""
    out = masks.numpy(force=True).copy()
    for row in np.flatnonzero(rng.random(len(out)) < share):
        wobbly = _wobbly(rng, out[row])
        if wobbly.any():
            out[row] = wobbly
    return torch.from_numpy(out).to(masks.device)


def _wobbly(rng: np.random.Generator, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    signed = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
    scale = 0.25 * np.sqrt(mask.sum())
    wave = ndimage.zoom(rng.standard_normal((9, 9)), mask.shape[0] / 9, order=1)
    return signed > 0.2 * scale * wave[: mask.shape[0], : mask.shape[1]] + rng.normal(0, 0.08 * scale)


def _inside(rng: np.random.Generator, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    step = max(1, mask.shape[-1] // ERROR_PX)
    small = mask[::step, ::step] if mask[::step, ::step].any() else mask
    step = mask.shape[-1] // small.shape[-1]
    if rng.random() < CENTRE_SHARE:
        return _pole(small) * step
    depth = _depth(small).ravel() ** 1.5
    row, column = divmod(int(rng.choice(len(depth), p=depth / depth.sum())), small.shape[1])
    return np.array([column, row], dtype=np.float64) * step


def _pole(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return (x, y) of the deepest point; of an empty mask the first pixel."""
    row, column = divmod(int(_depth(mask).argmax()), mask.shape[1])
    return np.array([column, row], dtype=np.float64)


def _depth(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the distance to the outside; the frame's edge counts as outside."""
    return ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]


def _points(points: object, like: Tensor) -> Tensor:
    array = torch.as_tensor(np.asarray(points), dtype=torch.float32, device=like.device)
    return array.reshape(len(like), -1, 2)
