"""Clips: a few neighbouring slices, cropped around an object as at inference, with the object's masks.

A clip is drawn twice: once small, to find the object on the prompted slice, and once through the window that a user's
prompt would open. The second track of a clip may take another object and the other direction.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage

from slicecast_lab.generated.fields import Raster
from slicecast_lab.generated.render import degrade, random_look, render
from slicecast_lab.generated.scenes import Scene, random_scene

SCOUT_PX = 48  # Side of the small picture in which the object is found
AREA_RANGE = (0.025, 0.45)  # Share of the frame that a prompted object covers on its prompted slice
TRACKS = 2  # Tracks of a clip; each has its own object and direction
ATTEMPTS = 20  # Scenes tried before a clip is given up; about one in two suits


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """Neighbouring slices and the tracks that follow them."""

    frames: NDArray[np.uint8]  # (T, S, S) uint8, grey
    orders: NDArray[np.int64]  # (TRACKS, T) int64, frame numbers in tracking order
    masks: NDArray[np.bool_]  # (TRACKS, T, S, S) bool, in tracking order; present on the first


@dataclass(frozen=True, slots=True)
class ClipSpec:
    """What is common to the clips of a batch."""

    slices: int  # T
    size_px: int  # S, side of the model's input
    native_px: tuple[int, int] = (28, 128)  # range of the pixels that a scan really has across the window


def random_clip(rng: np.random.Generator, spec: ClipSpec) -> Clip:
    """Draw clips until one has an object of a suitable size.

    Raises:
        RuntimeError: none did; the generator's ranges must have been changed badly.
    """
    for _ in range(ATTEMPTS):
        clip = _try_clip(rng, spec)
        if clip is not None:
            return clip
    raise RuntimeError(f"No suitable object in {ATTEMPTS} generated scenes; check the ranges in scenes.py.")


def _try_clip(rng: np.random.Generator, spec: ClipSpec) -> Clip | None:
    scene = random_scene(rng, slices=spec.slices)
    target = _scout(rng, scene)
    if target is None:
        return None
    label, window = target
    raster = _raster(rng, window, spec)
    labels = scene.labels(raster)
    first = _component(labels == label, 0)
    if not _suits(first[0]):
        return None
    orders, masks = _lanes(rng, labels, first)
    image = degrade(rng, render(rng, scene, raster, random_look(rng, scene), labels=labels))
    image = _letterbox(rng, image)
    return Clip(
        frames=(255 * _resize(image, spec.size_px, mode="bilinear")).round().astype(np.uint8),
        orders=orders,
        masks=_resize(masks.reshape(-1, *masks.shape[2:]), spec.size_px, mode="nearest")
        .reshape(*masks.shape[:2], spec.size_px, spec.size_px)
        .astype(bool),
    )


def _scout(rng: np.random.Generator, scene: Scene) -> tuple[int, tuple[float, float, float]] | None:
    """Return a label and the window (x, y, half side) around it on the prompted slice."""
    axis = np.linspace(-1, 1, SCOUT_PX, dtype=np.float32)
    labels = scene.labels(Raster(axis, axis, np.zeros(1, dtype=np.float32)))[0]
    label = scene.main_label if rng.random() < 0.75 else int(rng.choice(np.unique(labels)))
    parts, count = ndimage.label(labels == label)
    if label == 0 or not count:
        return None
    part = parts == rng.integers(1, count + 1)
    share = part.mean()
    if not 0.004 < share < 0.45:
        return None
    if rng.random() < 0.1:
        return label, (0.0, 0.0, 1.0)
    rows, columns = np.nonzero(part)
    low = axis[[columns.min(), rows.min()]]
    high = axis[[columns.max(), rows.max()]]
    half = max(0.5 * (high - low).max(), 0.04) * np.exp(rng.uniform(np.log(1.4), np.log(4)))
    x, y = 0.5 * (low + high) + rng.uniform(-0.15, 0.15, 2) * half
    return label, (float(x), float(y), float(half))


def _raster(rng: np.random.Generator, window: tuple[float, float, float], spec: ClipSpec) -> Raster:
    """Return the native pixels of the window, slightly anisotropic, on T slices."""
    x, y, half = window
    low, high = spec.native_px
    pixels = int(np.exp(rng.uniform(np.log(low), np.log(high + 1))))
    axis = ((np.arange(pixels) + 0.5) / pixels * 2 - 1) * half
    stretch = np.exp(rng.uniform(-0.12, 0.12))
    return Raster(
        x=(x + axis * stretch).astype(np.float32),
        y=(y + axis / stretch).astype(np.float32),
        z=np.arange(spec.slices, dtype=np.float32),
    )


def _component(mask: NDArray[np.bool_], frame: int) -> NDArray[np.bool_]:
    """Keep the 3D component with most pixels on a frame; diagonal contact between slices does not count."""
    parts, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(parts[frame].ravel(), minlength=count + 1)
    sizes[0] = 0
    return parts == sizes.argmax() if sizes.any() else mask


def _suits(mask: NDArray[np.bool_]) -> bool:
    low, high = AREA_RANGE
    return low <= mask.mean() <= high


def _lanes(
    rng: np.random.Generator, labels: NDArray[np.int16], first: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return orders (2, T) and native masks (2, T, n, n): the clip's object forwards, and another walk."""
    forwards = np.arange(len(labels))
    order = forwards[::-1] if rng.random() < 0.5 else forwards
    second = _second_object(rng, labels, int(order[0]), first)
    if second is None:
        order, second = forwards, first
    return np.stack([forwards, order]), np.stack([first, second[order]])


def _second_object(
    rng: np.random.Generator, labels: NDArray[np.int16], frame: int, first: NDArray[np.bool_]
) -> NDArray[np.bool_] | None:
    """Return the first object again, or half of the time any other, if it suits on that frame."""
    if rng.random() < 0.5 and _suits(first[frame]):
        return first
    values = rng.permutation(np.unique(labels[frame]))
    for value in values[values > 0][:3]:
        mask = _component(labels == value, frame)
        if _suits(mask[frame]):
            return mask
    return None


def _letterbox(rng: np.random.Generator, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Blacken up to three tenths on some sides, as where a window reaches past the scan."""
    if rng.random() < 0.75:
        return image
    top, bottom, left, right = (rng.uniform(0, 0.3, 4) * image.shape[1] * (rng.random(4) < 0.5)).astype(int)
    out = np.zeros_like(image)
    inside = np.s_[:, top : image.shape[1] - bottom, left : image.shape[2] - right]
    out[inside] = image[inside]
    return out


def _resize(stack: NDArray, size: int, *, mode: str) -> NDArray[np.float32]:
    """Resample (N, n, n) to (N, size, size)."""
    tensor = torch.from_numpy(np.ascontiguousarray(stack, dtype=np.float32))[:, None]
    options = {"align_corners": False, "antialias": True} if mode == "bilinear" else {}
    mode = mode if mode == "bilinear" else "nearest-exact"
    return F.interpolate(tensor, size=(size, size), mode=mode, **options)[:, 0].numpy()
