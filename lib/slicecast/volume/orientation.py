"""Bring any stored orientation to the canonical one (LPS) and back, without touching a voxel's value.

Canonical means: of the 48 ways to permute and flip the stored axes, the one whose direction matrix is nearest
to the identity. An oblique scan stays oblique. The choice depends on where the voxels lie in the patient,
never on how the file stores them, so the same scan always gives the same canonical array.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from slicecast.errors import GeometryError
from slicecast.volume.grid import Flips, Geometry, Permutation, Volume, nearest_to_identity


@dataclass(frozen=True, slots=True)
class Reorientation:
    """How a stored grid becomes the canonical one.

    Canonical axis c is source axis `permutation[c]`, reversed where `flips[c]`.
    Make it with `Reorientation.of(geometry)`.
    """

    source: Geometry
    permutation: Permutation
    flips: Flips

    @classmethod
    def of(cls, source: Geometry) -> "Reorientation":
        """Find the reorientation to canonical LPS of a stored grid."""
        return cls(source, *nearest_to_identity(source.direction_matrix))

    @property
    def geometry(self) -> Geometry:
        """The canonical grid."""
        order = list(self.permutation)
        signs = np.where(self.flips, -1.0, 1.0)
        return Geometry(
            size_ijk=tuple(self.source.size_ijk[axis] for axis in order),  # type: ignore[arg-type]
            spacing_mm=tuple(self.source.spacing_mm[axis] for axis in order),  # type: ignore[arg-type]
            origin_mm=self.source.index_to_world(self.to_source_ijk((0, 0, 0))),  # type: ignore[arg-type]
            direction=self.source.direction_matrix[:, order] * signs,
        )

    def to_canonical_array(self, array: np.ndarray) -> np.ndarray:
        """View a source array [k, j, i] in canonical order; no copy is made."""
        self._check_shape(array, self.source.shape_kji)
        moved = array.transpose(_numpy_axes(self.permutation))
        return np.flip(moved, axis=self._flipped_numpy_axes())

    def to_source_array(self, array: np.ndarray) -> np.ndarray:
        """View a canonical array [k, j, i] in source order; no copy is made."""
        moved = np.flip(array, axis=self._flipped_numpy_axes()).transpose(_numpy_axes(_inverse(self.permutation)))
        self._check_shape(moved, self.source.shape_kji)
        return moved

    def to_source_plane(self, axis: int, plane: np.ndarray) -> np.ndarray:
        """View a canonical slice (H, W) along `axis` as the stored array's slice shows it; no copy is made."""
        rows, columns = (place for place in (2, 1, 0) if place != axis)
        flipped = tuple(n for n, place in enumerate((rows, columns)) if self.flips[place])
        turned = np.flip(plane, axis=flipped)
        return turned if self.permutation[rows] > self.permutation[columns] else turned.T

    def to_canonical_ijk(self, points_ijk: Any) -> np.ndarray:
        """Map source voxel indices, (N, 3) or (3,), to canonical ones, same shape and kind of number."""
        points = np.asarray(points_ijk)[..., list(self.permutation)]
        return np.where(self.flips, self._last_canonical_ijk() - points, points)

    def to_source_ijk(self, points_ijk: Any) -> np.ndarray:
        """Map canonical voxel indices, (N, 3) or (3,), to source ones, same shape and kind of number."""
        points = np.asarray(points_ijk)
        unflipped = np.where(self.flips, self._last_canonical_ijk() - points, points)
        return unflipped[..., list(_inverse(self.permutation))]

    def to_canonical_slice(self, axis: int, number: int) -> int:
        """Map a slice number along the stored axis that becomes canonical `axis` to the canonical number."""
        return int(self._last_canonical_ijk()[axis]) - int(number) if self.flips[axis] else int(number)

    def to_source_slice(self, axis: int, number: int) -> int:
        """Map a canonical slice number along `axis` to the number in the file; its own inverse."""
        return self.to_canonical_slice(axis, number)

    def _last_canonical_ijk(self) -> np.ndarray:
        return np.array([self.source.size_ijk[axis] - 1 for axis in self.permutation])

    def _flipped_numpy_axes(self) -> tuple[int, ...]:
        return tuple(2 - axis for axis in range(3) if self.flips[axis])

    @staticmethod
    def _check_shape(array: np.ndarray, wanted: tuple[int, int, int]) -> None:
        if array.shape != wanted:
            raise GeometryError(
                f"An array of shape {array.shape} does not fit the source grid of shape {wanted} [k, j, i]."
            )


def canonicalise(volume: Volume) -> tuple[Volume, Reorientation]:
    """Return the scan in canonical LPS orientation (a view of the same memory) and how it got there."""
    reorientation = Reorientation.of(volume.geometry)
    array = reorientation.to_canonical_array(volume.array)
    return volume.with_array(array, reorientation.geometry), reorientation


def onto_grid(volume: Volume, grid: Geometry) -> Volume:
    """Bring a volume whose axes are stored in another order or direction onto `grid`; no voxel is resampled.

    Raises:
        GeometryError: it is not the same grid, however its axes are stored.
    """
    canonical, _ = canonicalise(volume)
    target = Reorientation.of(grid)
    differences = target.geometry.differences(canonical.geometry)
    if differences:
        raise GeometryError(f"The mask lies on another grid than its image: {'; '.join(differences)}. Save it on that.")
    return volume.with_array(target.to_source_array(canonical.array), grid)


def _inverse(permutation: Permutation) -> Permutation:
    return tuple(permutation.index(axis) for axis in range(3))  # type: ignore[return-value]


def _numpy_axes(permutation: Permutation) -> tuple[int, ...]:
    """The axes of `ndarray.transpose` for [k, j, i] arrays that permute (i, j, k) like this."""
    return tuple(2 - permutation[2 - axis] for axis in range(3))
