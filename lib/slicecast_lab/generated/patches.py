"""Cubes of generated anatomy around a click, for volumetric networks; the same scenes that the clips come from."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.utils.data import Dataset

from slicecast_lab.generated.fields import Raster
from slicecast_lab.generated.render import degrade, random_look, render
from slicecast_lab.generated.scenes import Scene, random_scene

SCOUT = 32  # Voxels along each side of the coarse cube in which an object is found

SCENE_SLICES = 40

VOXELS = (60, 0.35)  # Least voxels and largest share of the patch that an object has

ATTEMPTS = 50


@dataclass(frozen=True, slots=True)
class PatchSpec:
    """What a batch of patches holds."""

    size: int = 4  # of the batch
    side: int = 64  # voxels along each side
    off_centre: int = 8  # the first click lies at most this far from the patch's centre, along each axis
    thick: float = 0.3  # share of patches with thick slices


@dataclass(frozen=True, slots=True, eq=False)
class VolumeBatch:
    """Patches with one object each."""

    number: int  # of the batch within the run
    images: Tensor  # (B, S, S, S) float32, normalised as the network wants them
    masks: Tensor  # (B, S, S, S) bool
    points: Tensor  # (B, 3) int64, the first click of each, on its object


class GeneratedPatches(Dataset):
    """Batches by number, generated when asked for; batch n is always the same.

    Args:
        spec: what a batch holds.
        seed: of the whole sequence.
    """

    def __init__(self, spec: PatchSpec, *, seed: int) -> None:
        self.spec, self.seed = spec, seed

    def __getitem__(self, number: int) -> VolumeBatch:
        rng = np.random.default_rng([self.seed, number])
        images, masks, points = zip(*(random_patch(rng, self.spec) for _ in range(self.spec.size)), strict=True)
        return VolumeBatch(
            number=number,
            images=torch.from_numpy(np.stack(images)),
            masks=torch.from_numpy(np.stack(masks)),
            points=torch.from_numpy(np.stack(points)),
        )


Patch = tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.int64]]
"""Image in [0, 1] and mask [z, y, x], and a voxel (z, y, x) on the object."""


def random_patch(rng: np.random.Generator, spec: PatchSpec) -> Patch:
    """Draw scenes until one has an object of a suitable size.

    Raises:
        RuntimeError: none did; the generator's ranges must have been changed badly.
    """
    for _ in range(ATTEMPTS):
        patch = _try_patch(rng, spec)
        if patch is not None:
            return patch
    raise RuntimeError(f"No suitable object in {ATTEMPTS} generated scenes; check the ranges in patches.py.")


def _try_patch(rng: np.random.Generator, spec: PatchSpec) -> Patch | None:
    scene = random_scene(rng, slices=SCENE_SLICES)
    per_slice = float(np.exp(rng.uniform(np.log(1 / 40), np.log(1 / 12))))  # world units that a slice is thick
    target = _scout(rng, scene, per_slice)
    if target is None:
        return None
    label, centre, half = target
    click = spec.side // 2 + rng.integers(-spec.off_centre, spec.off_centre + 1, 3)
    offsets = ((np.arange(spec.side) - c) * (2 * half / spec.side) for c in click)
    z, y, x = (middle + offset for middle, offset in zip(centre, offsets, strict=True))
    raster = Raster(x.astype(np.float32), y.astype(np.float32), (z / per_slice).astype(np.float32))
    labels = scene.labels(raster)
    parts, _ = ndimage.label(labels == label)
    mask = parts == parts[tuple(click)]
    if labels[tuple(click)] != label or not VOXELS[0] <= mask.sum() <= VOXELS[1] * mask.size:
        return None
    image = degrade(rng, render(rng, scene, raster, random_look(rng, scene), labels=labels))
    if rng.random() < spec.thick:
        image = _thickened(rng, image)
    return _turned(rng, image, mask, click)


def _scout(
    rng: np.random.Generator, scene: Scene, per_slice: float
) -> tuple[int, tuple[float, float, float], float] | None:
    """Return a label, a point on it (z, y, x in world units) and half the side of the cube to look at."""
    axis = np.linspace(-1, 1, SCOUT, dtype=np.float32)
    labels = scene.labels(Raster(axis, axis, axis / np.float32(per_slice)))
    label = scene.main_label if rng.random() < 0.7 else int(rng.choice(np.unique(labels)))
    parts, count = ndimage.label(labels == label)
    if label == 0 or not count:
        return None
    part = parts == rng.integers(1, count + 1)
    depth = ndimage.distance_transform_edt(np.pad(part, 1))[1:-1, 1:-1, 1:-1]
    places = np.argwhere(depth >= max(1.0, rng.uniform(0, 0.8) * depth.max()))
    if not 8 <= part.sum() <= 0.4 * part.size or not len(places):
        return None
    extent = max(np.ptp(line) + 1 for line in np.nonzero(part)) / SCOUT
    half = float(np.clip(extent * np.exp(rng.uniform(np.log(0.8), np.log(4))), 0.15, 1.2))
    z, y, x = axis[places[rng.integers(len(places))]].tolist()
    return label, (z, y, x), half


def _thickened(rng: np.random.Generator, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average a few slices each and interpolate between, as where a scan of thick slices was resampled."""
    step = int(rng.integers(2, 5))
    means = ndimage.uniform_filter1d(image, step, axis=0)[step // 2 :: step]
    rows = np.clip((np.arange(len(image)) - step // 2) / step, 0, len(means) - 1)
    low = np.floor(rows).astype(int)
    share = (rows - low).astype(np.float32)[:, None, None]
    return (1 - share) * means[low] + share * means[np.minimum(low + 1, len(means) - 1)]


def _turned(
    rng: np.random.Generator, image: NDArray[np.float32], mask: NDArray[np.bool_], click: NDArray[np.int64]
) -> Patch:
    """Bring the axes into a random order and directions: no axis of a scan is special."""
    order = rng.permutation(3)
    flips = rng.random(3) < 0.5
    point = np.where(flips, np.array(image.shape)[order] - 1 - click[order], click[order])
    axes = tuple(np.flatnonzero(flips).tolist())
    turned = np.ascontiguousarray(np.flip(image.transpose(order), axes))
    return turned, np.ascontiguousarray(np.flip(mask.transpose(order), axes)), point
