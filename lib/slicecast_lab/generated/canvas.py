"""Paint soft-edged shapes, one over the other, onto a canonical grid: how the generated scans are made.

A shape is a depth in mm, an array like the grid: below 0 inside, above 0 outside, about true near the edge.
World coordinates are LPS mm: x to the left, y to the back, z upwards.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from slicecast.volume import Geometry

XYZ = tuple[float, float, float]

SPECK_VOXELS = 20  # Parts of a structure smaller than this are left out of the truth


class Canvas:
    """A scan in the making: numbers, labels, and the coordinates of every voxel.

    Attributes:
        numbers: float32 [k, j, i].
        labels: uint8 [k, j, i].
        x, y, z: LPS mm of the voxels, broadcastable to [k, j, i].
    """

    def __init__(self, geometry: Geometry, *, background: float, seed: int) -> None:
        self.geometry = geometry
        self.numbers = np.full(geometry.shape_kji, background, dtype=np.float32)
        self.labels = np.zeros(geometry.shape_kji, dtype=np.uint8)
        self._rng = np.random.default_rng(seed)
        ends = geometry.index_to_world(np.array(geometry.size_ijk) - 1)
        x, y, z = (
            np.linspace(low, high, count, dtype=np.float32)
            for low, high, count in zip(geometry.origin_mm, ends, geometry.size_ijk, strict=True)
        )
        self.x, self.y, self.z = x[None, None, :], y[None, :, None], z[:, None, None]

    def paint(
        self, depth: np.ndarray, value: float | np.ndarray, *, edge_mm: float = 1.2, label: int | None = None
    ) -> None:
        """Paint a shape over what is there; its edge is mixed as a scanner mixes it (partial volume)."""
        share = 1.0 / (1.0 + np.exp(np.clip(depth / (edge_mm / 2), -30, 30)))
        self.numbers += share * (value - self.numbers)
        if label is not None:
            self.labels[np.broadcast_to(depth < 0, self.labels.shape)] = label

    def warp(self, amplitude_mm: float, *, scale_mm: float) -> None:
        """Bend the coordinates, so that no two seeds draw the same anatomy and nothing is quite symmetric."""
        bends = [amplitude_mm * self.noise(scale_mm) for _ in range(3)]
        self.x, self.y, self.z = self.x + bends[0], self.y + bends[1], self.z + bends[2]

    def truth(self) -> np.ndarray:
        """Return the labels without specks that no annotator would draw."""
        clean = self.labels.copy()
        for label in np.unique(clean[clean > 0]):
            parts, _ = ndimage.label(self.labels == label)
            small = np.bincount(parts.ravel()) < SPECK_VOXELS
            clean[small[parts] & (parts > 0)] = 0
        return clean

    def noise(self, scale_mm: float | XYZ) -> np.ndarray:
        """Draw smooth noise with unit deviation; `scale_mm` is about the size of its lumps, along x, y, z."""
        sigma = np.broadcast_to(scale_mm, 3) / np.array(self.geometry.spacing_mm) / 2
        field = ndimage.gaussian_filter(self._rng.standard_normal(self.numbers.shape, dtype=np.float32), sigma[::-1])
        return field / max(float(field.std()), 1e-9)

    def ellipsoid(self, centre: XYZ, radii: XYZ, *, power: float = 2.0, turn_deg: float = 0.0) -> np.ndarray:
        """Shape an ellipsoid, turned about the z axis; `power` above 2 makes it boxier."""
        angle = np.radians(turn_deg)
        across, along = self.x - centre[0], self.y - centre[1]
        u = (np.cos(angle) * across + np.sin(angle) * along) / radii[0]
        v = (np.cos(angle) * along - np.sin(angle) * across) / radii[1]
        w = (self.z - centre[2]) / radii[2]
        reach = (np.abs(u) ** power + np.abs(v) ** power + np.abs(w) ** power) ** (1 / power)
        return ((reach - 1) * min(radii)).astype(np.float32)

    def column(self, centre: tuple[float | np.ndarray, float | np.ndarray], radii: tuple[float, float]) -> np.ndarray:
        """Shape an elliptic column along z; its centre may depend on z."""
        reach = np.hypot((self.x - centre[0]) / radii[0], (self.y - centre[1]) / radii[1])
        return ((reach - 1) * min(radii)).astype(np.float32)

    def tube(self, points: Sequence[XYZ], radii: Sequence[float]) -> np.ndarray:
        """Shape a tube through points, with a radius at each."""
        depth = np.full(self.numbers.shape, np.inf, dtype=np.float32)
        for start, end, r0, r1 in zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True):
            np.minimum(depth, self._segment(np.array(start), np.array(end), r0, r1), out=depth)
        return depth

    def branches(self, root: XYZ, tips: Sequence[XYZ], *, radius: float, wander_mm: float = 8.0) -> np.ndarray:
        """Shape vessels that leave `root` and thin out towards each tip."""
        depth = np.full(self.numbers.shape, np.inf, dtype=np.float32)
        for tip in tips:
            middle = (np.array(root) + tip) / 2 + self._rng.normal(0, wander_mm, 3)
            np.minimum(depth, self.tube([root, tuple(middle), tip], [radius, radius * 0.7, radius * 0.3]), out=depth)
        return depth

    def scatter(self, count: int, centre: XYZ, radii: XYZ) -> list[XYZ]:
        """Draw points at random on an ellipsoid's shell."""
        directions = self._rng.normal(size=(count, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        return [tuple(point) for point in np.array(centre) + directions * np.array(radii)]

    def _segment(self, start: np.ndarray, end: np.ndarray, r0: float, r1: float) -> np.ndarray:
        run = end - start
        offsets = (self.x - start[0], self.y - start[1], self.z - start[2])
        along = np.clip(sum(o * r for o, r in zip(offsets, run, strict=True)) / max(float(run @ run), 1e-9), 0, 1)
        squares = sum((o - along * r) ** 2 for o, r in zip(offsets, run, strict=True))
        return (np.sqrt(squares) - (r0 + along * (r1 - r0))).astype(np.float32)


def inside_both(*depths: np.ndarray) -> np.ndarray:
    """Shape what all the shapes share."""
    return np.maximum.reduce(np.broadcast_arrays(*depths))


def without(depth: np.ndarray, *others: np.ndarray) -> np.ndarray:
    """Shape what is left of the first when the others are cut out."""
    return inside_both(depth, *(-other for other in others))


def blend(a: np.ndarray, b: np.ndarray, *, round_mm: float = 10.0) -> np.ndarray:
    """Shape two shapes grown together, the seam rounded off."""
    mix = np.clip(0.5 + (b - a) / (2 * round_mm), 0, 1)
    return b + mix * (a - b) - round_mm * mix * (1 - mix)
