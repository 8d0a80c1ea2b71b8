"""Phantoms and grids for the tests: what is expected of them can be worked out by hand.

Import as `from builders import ...` (pytest puts `tests/` on the path).
"""

from typing import Any, NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from slicecast.volume import Geometry, Reorientation, Volume
from slicecast.volume.grid import all_orientations

SIZE_IJK = (24, 20, 16)
"""Three different lengths, so that a mixed-up axis cannot go unseen."""

ORIENTATIONS = list(all_orientations())
"""All 48 (permutation, flips)."""

KINDS = ("sphere", "tube", "oblique", "flipped", "anisotropic")


class Phantom(NamedTuple):
    """A scan and the one structure in it."""

    volume: Volume
    truth: np.ndarray
    """bool [k, j, i], on the volume's grid"""


def ball(size_ijk: Any = SIZE_IJK, *, centre_ijk: Any = None, radius: float = 5.0) -> np.ndarray:
    """Draw a ball, in voxels; bool [k, j, i]."""
    centre = np.array(size_ijk) / 2 if centre_ijk is None else np.array(centre_ijk)
    return np.linalg.norm(_voxels(size_ijk) - centre, axis=-1) <= radius


def tube(size_ijk: Any = SIZE_IJK, *, start_ijk: Any, end_ijk: Any, radius: float = 2.5) -> np.ndarray:
    """Draw a straight tube with round ends, in voxels; bool [k, j, i]."""
    start, run = np.array(start_ijk, float), np.subtract(end_ijk, start_ijk).astype(float)
    offset = _voxels(size_ijk) - start
    along = np.clip(offset @ run / (run @ run), 0, 1)[..., None]
    return np.linalg.norm(offset - along * run, axis=-1) <= radius


def grid(size_ijk: Any = SIZE_IJK, *, spacing_mm: Any = (1, 1, 1), turn_deg: Any = (0, 0, 0)) -> Geometry:
    """Make a grid near LPS, turned about the x, y, z axes by `turn_deg`."""
    direction = Rotation.from_euler("xyz", turn_deg, degrees=True).as_matrix()
    return Geometry(size_ijk, spacing_mm, (-10.5, 5.25, 30.0), direction)


def scan(truth: np.ndarray, geometry: Geometry | None = None, *, seed: int = 0, noise: float = 8.0) -> Volume:
    """Make an int16 scan in which `truth` (120) is brighter than its surroundings (20), with noise."""
    rng = np.random.default_rng(seed)
    numbers = np.where(truth, 120.0, 20.0) + rng.normal(0.0, noise, truth.shape)
    return Volume(numbers.round().astype(np.int16), geometry or grid(truth.shape[::-1]))


def stored_as(volume: Volume, permutation: Any, flips: Any) -> Volume:
    """Store the same scan with its axes permuted and flipped: every voxel stays where it is in the patient."""
    storage = Reorientation(volume.geometry, permutation, flips)
    return volume.with_array(storage.to_canonical_array(volume.array), storage.geometry)


def phantom(kind: str = "sphere") -> Phantom:
    """Make one of KINDS."""
    if kind == "tube":
        truth = tube(start_ijk=(5, 10, 2), end_ijk=(18, 9, 13))
        return Phantom(scan(truth), truth)
    if kind == "anisotropic":
        truth = ball((24, 20, 8), radius=3.5)
        return Phantom(scan(truth, grid((24, 20, 8), spacing_mm=(0.8, 0.8, 5.0))), truth)
    truth = ball()
    if kind == "oblique":
        return Phantom(scan(truth, grid(turn_deg=(12, -8, 20))), truth)
    if kind == "flipped":
        stored = stored_as(scan(truth), (2, 0, 1), (True, False, True))
        return Phantom(stored, stored_as(scan(truth, noise=0.0), (2, 0, 1), (True, False, True)).array > 70)
    if kind != "sphere":
        raise ValueError(f"No phantom '{kind}'; there are {', '.join(KINDS)}.")
    return Phantom(scan(truth), truth)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Dice of two bool arrays; 1 when both are empty."""
    total = np.count_nonzero(a) + np.count_nonzero(b)
    return 1.0 if total == 0 else 2.0 * np.count_nonzero(np.logical_and(a, b)) / total


def _voxels(size_ijk: Any) -> np.ndarray:
    """Every voxel's (i, j, k), float64 [k, j, i, 3]."""
    k, j, i = np.indices(tuple(size_ijk)[::-1], dtype=float)
    return np.stack([i, j, k], axis=-1)
