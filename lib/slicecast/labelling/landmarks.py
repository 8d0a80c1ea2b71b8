"""Landmarks: where a structure lies in a body, and where that is in another scan.

A landmark is a place in the body, as shares of its width, depth and height, and a brightness. In the other scan it is
looked for around that place, where the brightness fits best. No registration, no model: a start for one, not a result.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu

from slicecast.prompts.model import IJK
from slicecast.volume import Geometry, Volume, choose_window, normalise
from slicecast.volume.windowing import looks_like_ct

BODY_VOXELS = 64  # Voxels per axis to which a scan is thinned out before its body is found
SMOOTH_MM = 2.0  # Standard deviation of the smoothing before brightness is compared
LEAST_REACH_MM, REACH_RADII = 20.0, 2.0
"""A landmark is searched for within this distance of its expected place, or so many of its radii, whichever is more."""
MOST_SPREADS = 2.0
"""A voxel is no candidate if its brightness is off by more than so many standard deviations of the structure's own."""
LEAST_SPREAD = 0.05
"""Lower bound of a structure's standard deviation of brightness (0 to 1): a uniform structure would match nothing."""
ALIKE = 1.5  # Two bodies whose sizes differ by this factor along any axis do not show the same part of the body


@dataclass(frozen=True, slots=True)
class Body:
    """The box around the body."""

    low_mm: np.ndarray  # corners, LPS
    high_mm: np.ndarray  # corners, LPS
    is_ct: bool  # whether the numbers are Hounsfield units

    def resembles(self, other: "Body") -> bool:
        """Tell whether both show the same part of a body in the same kind of scan, as far as sizes tell."""
        ratio = (self.high_mm - self.low_mm) / np.maximum(other.high_mm - other.low_mm, 1e-6)
        return self.is_ct == other.is_ct and bool((ratio < ALIKE).all() and (ratio > 1 / ALIKE).all())


@dataclass(frozen=True, slots=True)
class Landmark:
    """A voxel well inside a structure."""

    share: np.ndarray  # its place between the body's corners, 0 to 1 for x, y, z
    radius_mm: float  # its distance from the structure's edge
    brightness: float  # mean grey value of the structure, 0 to 1
    spread: float  # standard deviation of it


def find_body(scan: Volume) -> Body:
    """Find the body: the largest bright part of a scan."""
    step = [max(1, length // BODY_VOXELS) for length in scan.array.shape]
    coarse = scan.array[:: step[0], :: step[1], :: step[2]]
    bright = coarse > threshold_otsu(coarse) if coarse.min() < coarse.max() else np.ones(coarse.shape, bool)
    parts, count = ndimage.label(bright)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    voxels = np.argwhere(parts == int(sizes.argmax()) + 1) * step
    corners = scan.geometry.index_to_world(voxels[:, ::-1])
    return Body(corners.min(axis=0), corners.max(axis=0), looks_like_ct(scan))


def landmarks(scan: Volume, label: np.ndarray, values: Mapping[str, int]) -> dict[str, Landmark]:
    """Return a landmark of each structure that has voxels.

    Args:
        label: whole numbers [k, j, i], on the scan's grid.
        values: name of the structure to its number.
    """
    body, grey = find_body(scan), normalise(scan.array, choose_window(scan))
    found: dict[str, Landmark] = {}
    for name, value in values.items():
        inside = label == value
        if inside.any():
            depth_mm = ndimage.distance_transform_edt(inside, sampling=scan.geometry.spacing_mm[::-1])
            kji = np.unravel_index(int(depth_mm.argmax()), depth_mm.shape)
            place_mm = scan.geometry.index_to_world(kji[::-1])
            share = (place_mm - body.low_mm) / np.maximum(body.high_mm - body.low_mm, 1e-6)
            spread = max(float(grey[inside].std()), LEAST_SPREAD)
            found[name] = Landmark(share, float(depth_mm.max()), float(grey[inside].mean()), spread)
    return found


def transfer(known: Mapping[str, Landmark], scan: Volume) -> dict[str, IJK]:
    """Find landmarks in another scan; those whose brightness fits nowhere near their place are left out."""
    body, window = find_body(scan), choose_window(scan)
    placed: dict[str, IJK] = {}
    for name, landmark in known.items():
        place_mm = body.low_mm + landmark.share * (body.high_mm - body.low_mm)
        reach_mm = max(LEAST_REACH_MM, REACH_RADII * landmark.radius_mm)
        low, high = _window(scan.geometry, place_mm, reach_mm)
        if (low < high).all():
            cut = tuple(slice(a, b) for a, b in zip(low[::-1], high[::-1], strict=True))
            ijk = _best(normalise(scan.array[cut], window), low, scan.geometry, place_mm, reach_mm, landmark)
            if ijk is not None:
                placed[name] = ijk
    return placed


def _window(geometry: Geometry, place_mm: np.ndarray, reach_mm: float) -> tuple[np.ndarray, np.ndarray]:
    centre, reach = geometry.world_to_index(place_mm), reach_mm / np.array(geometry.spacing_mm)
    low = np.clip(np.floor(centre - reach), 0, geometry.size_ijk).astype(int)
    return low, np.clip(np.ceil(centre + reach) + 1, 0, geometry.size_ijk).astype(int)


def _best(
    grey: np.ndarray, low: np.ndarray, geometry: Geometry, place_mm: np.ndarray, reach_mm: float, landmark: Landmark
) -> IJK | None:
    smooth = ndimage.gaussian_filter(grey.astype(np.float32), SMOOTH_MM / np.array(geometry.spacing_mm[::-1]))
    voxels = np.argwhere(np.ones(smooth.shape, bool))[:, ::-1] + low
    far = np.linalg.norm(geometry.index_to_world(voxels) - place_mm, axis=1) / reach_mm
    off = np.abs(smooth.ravel() - landmark.brightness) / landmark.spread
    fits = (far <= 1.0) & (off <= MOST_SPREADS)
    if not fits.any():
        return None
    chosen = voxels[np.where(fits, off + 2.0 * far, np.inf).argmin()]
    return int(chosen[0]), int(chosen[1]), int(chosen[2])
