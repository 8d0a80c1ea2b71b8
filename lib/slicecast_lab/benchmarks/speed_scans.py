"""Scans for benchmarks of speed, with an object to click on, stored so that every contestant reads the same file.

Canonical and windowed to 0..255: MONAI Label's SAM 2 task turns what lies outside to black or white.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slicecast.config import data_dir
from slicecast.errors import ConfigError
from slicecast.prompts.simulate import deepest_point
from slicecast.volume import Geometry, Volume, canonicalise, choose_window, normalise, read_volume, write_volume
from slicecast_lab.generated import sample_ct, sample_mr

IJK = tuple[int, int, int]
Labelled = tuple[Volume, list[NDArray[np.bool_]]]  # A canonical scan, and masks [k, j, i] of objects in it
LARGEST_SHARE = 0.3  # Of the slices that an object may span

LEAST_SLICES, LEAST_VOXELS = 8, 500
PLACES = (0.5, 0.75, 0.25, 0.1, 0.9, 0.6, 0.0)
"""Where an annotator clicks one after the other: shares of the object's extent."""

CLIP_SLICES = 24
ORGAN_IJK, ORGAN_SLICES, LARGE = (190, 240, 150), 60, (512, 512, 300)
CT_STRUCTURES = (1, 2, 3, 5, 51, 52)  # Spleen, kidneys, liver, heart and aorta in TotalSegmentator's numbers

TUMOUR_PARTS = ((1, 2, 3, 4), (1, 3, 4), (3, 4), (4,))
"""The whole tumour, its core, and what of it is bright, in BraTS's numbers."""


@dataclass(frozen=True, slots=True)
class Target:
    """An object: the slices that it spans, half-open, and voxels (i, j, k) to click on, in the order of PLACES."""

    slices: tuple[int, int]
    clicks: tuple[IJK, ...]


@dataclass(frozen=True, slots=True)
class SpeedScan:
    """A scan with objects; the one that is timed comes first."""

    key: str
    title: str
    image: Path
    slices: int
    objects: tuple[Target, ...]


def write_scan(key: str, folder: Path) -> SpeedScan:
    """Read or generate a scan (a key of SCANS) and write it, windowed, into a folder."""
    title, (volume, masks) = SCANS[key]()
    window = choose_window(volume)
    grey = np.stack([(normalise(plane, window) * 255).round().astype(np.int16) for plane in volume.array])
    image = folder / f"{key}.nii.gz"
    write_volume(image, Volume(grey, Geometry(volume.geometry.size_ijk, volume.geometry.spacing_mm)))
    return SpeedScan(key, title, image, len(grey), tuple(target_of(mask) for mask in masks))


def target_of(mask: NDArray[np.bool_]) -> Target:
    """Return where to click on an object (mask [k, j, i]): the deepest pixel of each of the slices at PLACES."""
    numbers = np.flatnonzero(mask.any(axis=(1, 2)))
    slices = [int(numbers[round(share * (len(numbers) - 1))]) for share in PLACES]
    deepest = [deepest_point(mask[k])[0] for k in slices]
    clicks = tuple((int(x), int(y), k) for (y, x), k in zip(deepest, slices, strict=True))
    return Target((int(numbers[0]), int(numbers[-1]) + 1), clicks)


def short_ones(masks: Iterator[NDArray[np.bool_]], *, then_long: bool = False) -> list[NDArray[np.bool_]]:
    """Return those that span at most 30 % of the slices and are worth clicking on, nearest to the middle slice first.

    In the middle, propagation in one direction only (MONAI Label's) covers half of the volume: neither the best nor
    the worst case.

    Args:
        then_long: longer ones follow, for measuring several objects at once.
    """
    found: list[tuple[bool, float, NDArray[np.bool_]]] = []
    for mask in masks:
        numbers = np.flatnonzero(mask.any(axis=(1, 2)))
        if len(numbers) >= LEAST_SLICES and mask.sum() >= LEAST_VOXELS:
            distance = abs(float(numbers[0] + numbers[-1]) / 2 - len(mask) / 2)
            found.append((len(numbers) > LARGEST_SHARE * len(mask), distance, mask))
    return [mask for long, _, mask in sorted(found, key=lambda entry: entry[:2]) if then_long or not long]


def large_ct(seed: int = 0) -> tuple[Volume, NDArray[np.bool_]]:
    """Generate a CT [k, j, i] int16 HU of 512 x 512 x 300: air, fat, muscle and an organ of 60 slices; and its mask."""
    rng = np.random.default_rng(seed)
    ni, nj, nk = LARGE
    j, i = np.mgrid[:nj, :ni].astype(np.float32)
    body = ((i - 256) / 215) ** 2 + ((j - 256) / 160) ** 2
    slab = np.select([body < 0.8, body < 1], [50.0, -95.0], -1000.0).astype(np.float32)
    volume, mask = np.empty((nk, nj, ni), dtype=np.int16), np.empty((nk, nj, ni), dtype=bool)
    for k in range(nk):
        depth = (k - ORGAN_IJK[2]) / (ORGAN_SLICES / 2)
        mask[k] = ((i - ORGAN_IJK[0]) / 70) ** 2 + ((j - ORGAN_IJK[1]) / 55) ** 2 + depth**2 < 1
        volume[k] = np.where(mask[k], 130.0, slab) + rng.normal(0, 12, (nj, ni))
    geometry = Geometry(LARGE, (0.8, 0.8, 1.25), (0.0, 0.0, 0.0))
    return Volume(volume, geometry, {"modality": "CT"}), mask


def _large() -> tuple[str, Labelled]:
    volume, mask = large_ct()
    return "generated CT, 512x512x300", (volume, [mask])


def _clip() -> tuple[str, Labelled]:
    """Cut slices through the organ out of the large CT; the object is there on every one of them."""
    volume, mask = large_ct()
    cut = slice(ORGAN_IJK[2] - CLIP_SLICES // 2, ORGAN_IJK[2] + CLIP_SLICES // 2)
    geometry = Geometry((*LARGE[:2], CLIP_SLICES), volume.geometry.spacing_mm)
    return f"clip of {CLIP_SLICES} slices, 512x512", (Volume(volume.array[cut], geometry), [mask[cut]])


def _thick_ct() -> tuple[str, Labelled]:
    folder = data_dir() / "totalsegmentator"
    scan, label = folder / "example_ct.nii.gz", folder / "example_seg_fast_force_split.nii.gz"
    if scan.is_file() and label.is_file():
        found = _labelled(scan, label, [(value,) for value in CT_STRUCTURES], then_long=True)
        return _sized("3 mm CT (TotalSegmentator)", found[0]), found
    grid = Geometry((128, 104, 112), (3.0, 3.0, 3.0), (-192.0, -156.0, -90.0))
    numbers, labels = sample_ct.abdomen(grid, sample_ct.Torso(), seed=11)
    masks = short_ones((labels == value for value in sample_ct.LABELS.values()), then_long=True)
    return "generated 3 mm CT, 128x104x112", (Volume(numbers, grid, {"modality": "CT"}), masks)


def _brain_mr() -> tuple[str, Labelled]:
    """Take the first scan of BraTS whose tumour is short enough, else the first with such a part of one."""
    folder = data_dir() / "brats"
    scans = sorted((folder / "images").glob("*.nii.gz"))
    for values in TUMOUR_PARTS:
        for scan in scans:
            found = _labelled(scan, folder / "labels" / scan.name, [values])
            if found[1]:
                return _sized("MR (BraTS)", found[0]), found
    grid = Geometry((120, 144, 155), (1.45, 1.45, 1.1), (-86.0, -104.0, -75.0))
    numbers, labels = sample_mr.head(grid, sample_mr.Head(), seed=3)
    masks = short_ones(labels == value for value in sample_mr.LABELS.values())
    return "generated MR, 120x144x155", (Volume(numbers, grid, {"modality": "MR"}), masks)


def _labelled(scan: Path, label: Path, structures: Sequence[tuple[int, ...]], *, then_long: bool = False) -> Labelled:
    volume, _ = canonicalise(read_volume(scan))
    labels, _ = canonicalise(read_volume(label))
    return volume, short_ones((np.isin(labels.array, values) for values in structures), then_long=then_long)


def _sized(title: str, volume: Volume) -> str:
    return f"{title}, {'x'.join(map(str, volume.geometry.size_ijk))}"


SCANS: dict[str, Callable[[], tuple[str, Labelled]]] = {
    "ct": _thick_ct,
    "mr": _brain_mr,
    "large": _large,
    "clip": _clip,
}
"""What can be asked for."""


def few_slices(scan: SpeedScan, count: int, folder: Path) -> SpeedScan:
    """Cut a scan to so many slices around the first click, for a quick look.

    Raises:
        ConfigError: the object has fewer.
    """
    volume, target = read_volume(scan.image), scan.objects[0]
    low = max(target.slices[0], min(target.clicks[0][2] - count // 2, target.slices[1] - count))
    if not 1 <= count <= target.slices[1] - target.slices[0]:
        raise ConfigError(f"{count} slices were asked for; the object of {scan.title} spans {target.slices}.")
    image = folder / f"{scan.key}-{count}.nii.gz"
    cut = volume.array[low : low + count]
    write_volume(image, Volume(cut, Geometry((*volume.geometry.size_ijk[:2], count), volume.geometry.spacing_mm)))
    i, j, _ = target.clicks[0]
    places = tuple((i, j, round(share * (count - 1))) for share in PLACES)
    return SpeedScan(scan.key, f"{scan.title}, {count} slices of it", image, count, (Target((0, count), places),))
