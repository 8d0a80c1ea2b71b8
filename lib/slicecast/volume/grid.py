"""A scan in memory: its numbers, and the grid that says where each voxel lies in the patient.

Convention owned here: voxel index (i, j, k), i fastest, 0-based, integer = voxel centre; world LPS in mm
(x to the patient's Left, y to Posterior, z to Superior); arrays are numpy [k, j, i].

Any stored orientation is brought to the canonical one (LPS) and back without touching a voxel's value. Canonical means:
of the 48 ways to permute and flip the stored axes, the one whose direction matrix is nearest to the identity; an
oblique scan stays oblique. The choice depends on where the voxels lie in the patient, never on how the file stores
them, so the same scan always gives the same canonical array.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations, product
from typing import Any

import numpy as np
import SimpleITK as sitk

from slicecast.errors import GeometryError, VolumeError

ORTHONORMAL_TOLERANCE = 1e-3
"""Largest accepted entry of |DᵀD - 1| of a direction matrix D; headers round to about 6 digits."""
MOST_ANISOTROPY = 1000.0  # Largest spacing over the smallest; real scans stay under 100
SPACING_TOLERANCE_MM = 1e-3  # Two grids whose spacings differ by less than this are the same grid
ORIGIN_TOLERANCE_MM = 1e-2  # Two grids whose first voxels lie closer than this are the same grid; NIfTI stores float32
DIRECTION_TOLERANCE = 1e-3  # Two grids whose direction cosines differ by less than this are the same grid
TIE_TOLERANCE = 1e-5  # Orientations whose traces differ by less than this are equally close to the identity

Permutation = tuple[int, int, int]
Flips = tuple[bool, bool, bool]

_IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
_AXIS_LETTERS = (("L", "R"), ("P", "A"), ("S", "I"))


@dataclass(frozen=True, slots=True)
class Geometry:
    """Size, spacing, origin and direction of a voxel grid; hashable, valid from construction on.

    Args:
        size_ijk: voxels along i, j, k.
        spacing_mm: distance of voxel centres along i, j, k.
        origin_mm: LPS position of the centre of voxel (0, 0, 0).
        direction: 3x3, rows L, P, S; column n is the unit vector in which index n grows.

    Raises:
        GeometryError: a value is not finite, not positive, or the direction is not orthonormal.
    """

    size_ijk: tuple[int, int, int]
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[tuple[float, float, float], ...] = _IDENTITY

    def __post_init__(self) -> None:
        size = _numbers(self.size_ijk, (3,), "size_ijk")
        spacing = _numbers(self.spacing_mm, (3,), "spacing_mm")
        origin = _numbers(self.origin_mm, (3,), "origin_mm")
        direction = _numbers(self.direction, (3, 3), "direction")
        if (size < 1).any() or (size != np.floor(size)).any():
            raise GeometryError(f"size_ijk is {_text(size)}; every axis needs a whole number of voxels, at least 1.")
        if (spacing <= 0).any():
            raise GeometryError(
                f"spacing_mm is {_text(spacing)}; every spacing must be above 0. Mend the file's header."
            )
        if spacing.max() > MOST_ANISOTROPY * spacing.min():
            raise GeometryError(
                f"spacing_mm is {_text(spacing)}; one is more than {MOST_ANISOTROPY:g} times another. "
                "Mend the file's header."
            )
        if np.abs(direction.T @ direction - np.eye(3)).max() > ORTHONORMAL_TOLERANCE:
            raise GeometryError(
                f"direction {direction.round(4).tolist()} has columns that are not unit vectors at right angles; "
                "resample the scan onto a grid without shear."
            )
        object.__setattr__(self, "size_ijk", tuple(int(n) for n in size))
        object.__setattr__(self, "spacing_mm", tuple(spacing.tolist()))
        object.__setattr__(self, "origin_mm", tuple(origin.tolist()))
        object.__setattr__(self, "direction", tuple(tuple(row) for row in direction.tolist()))

    @property
    def shape_kji(self) -> tuple[int, int, int]:
        """Shape of the numpy array [k, j, i] on this grid."""
        return self.size_ijk[::-1]

    @property
    def direction_matrix(self) -> np.ndarray:
        """Direction as float64 (3, 3); column n is the LPS unit vector of index n."""
        return np.array(self.direction)

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(np.prod(self.spacing_mm)) / 1000.0

    @property
    def axcodes(self) -> str:
        """The direction in which i, j, k grow, as three letters such as 'LPS' or 'RAI' (the closest axes)."""
        permutation, flips = nearest_to_identity(self.direction_matrix)
        letters = {axis: _AXIS_LETTERS[world][flips[world]] for world, axis in enumerate(permutation)}
        return "".join(letters[axis] for axis in range(3))

    def index_to_world(self, points_ijk: Any) -> np.ndarray:
        """Map voxel indices, (N, 3) or (3,), to LPS mm, float64 of the same shape."""
        points = np.asarray(points_ijk, dtype=np.float64)
        return points * self.spacing_mm @ self.direction_matrix.T + self.origin_mm

    def world_to_index(self, points_mm: Any) -> np.ndarray:
        """Map LPS mm, (N, 3) or (3,), to continuous voxel indices, float64 of the same shape."""
        offset = np.asarray(points_mm, dtype=np.float64) - self.origin_mm
        # solve, not the transpose: headers are orthonormal to 1e-3 only, and the round trip must be exact.
        return offset @ np.linalg.inv(self.direction_matrix).T / self.spacing_mm

    def contains(self, points_ijk: Any) -> np.ndarray:
        """Tell which voxel indices, (..., 3), lie on the grid; bool (...)."""
        points = np.asarray(points_ijk)
        return ((points >= 0) & (points < self.size_ijk)).all(axis=-1)

    def differences(self, other: "Geometry") -> list[str]:
        """List, in words, how `other` differs from this grid; empty when they are the same grid."""
        found = []
        if self.size_ijk != other.size_ijk:
            found.append(f"size {_text(self.size_ijk)} against {_text(other.size_ijk)} voxels")
        for word, tolerance, unit in (
            ("spacing_mm", SPACING_TOLERANCE_MM, " mm"),
            ("origin_mm", ORIGIN_TOLERANCE_MM, " mm"),
            ("direction", DIRECTION_TOLERANCE, ""),
        ):
            own, theirs = np.array(getattr(self, word)), np.array(getattr(other, word))
            if np.abs(own - theirs).max() > tolerance:
                found.append(f"{word.removesuffix('_mm')} {_text(own)} against {_text(theirs)}{unit}")
        return found

    @classmethod
    def from_image(cls, image: sitk.Image) -> "Geometry":
        """Take the grid of a 3D SimpleITK image (or of an ImageFileReader that has read a header)."""
        return cls(
            size_ijk=tuple(image.GetSize()[:3]),
            spacing_mm=tuple(image.GetSpacing()[:3]),
            origin_mm=tuple(image.GetOrigin()[:3]),
            direction=np.reshape(image.GetDirection(), (3, 3)),  # type: ignore[arg-type]
        )

    def to_image(self, array: np.ndarray) -> sitk.Image:
        """Make a SimpleITK image of `array` [k, j, i] on this grid.

        Raises:
            GeometryError: the array's shape is not this grid's.
        """
        if array.shape != self.shape_kji:
            raise GeometryError(
                f"An array of shape {array.shape} does not fit a grid of shape {self.shape_kji} [k, j, i]."
            )
        image = sitk.GetImageFromArray(np.ascontiguousarray(array))
        image.SetSpacing(self.spacing_mm)
        image.SetOrigin(self.origin_mm)
        image.SetDirection(self.direction_matrix.ravel().tolist())
        return image


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """One 3D scan.

    Args:
        array: numbers, [k, j, i], any real dtype; shared, not copied.
        geometry: the grid of `array`.
        meta: what else is known: `source` (path), `modality` ('CT', 'MR' or None), `warnings` (tuple of
            sentences for the user), `series_uid`. Never patient data.

    Raises:
        VolumeError: the array is not 3D, empty, not of numbers, or does not fit the grid.
    """

    array: np.ndarray
    geometry: Geometry
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.array.ndim != 3 or self.array.size == 0:
            raise VolumeError(f"An array of shape {self.array.shape} is not a volume; give three axes [k, j, i].")
        if self.array.dtype.kind not in "iufb":
            raise VolumeError(f"Voxels of type {self.array.dtype} are not usable; give real numbers.")
        if self.array.shape != self.geometry.shape_kji:
            raise VolumeError(
                f"The array's shape {self.array.shape} is not the grid's {self.geometry.shape_kji} [k, j, i]."
            )
        object.__setattr__(self, "meta", dict(self.meta))

    @classmethod
    def from_image(cls, image: sitk.Image, **meta: Any) -> "Volume":
        """Take voxels and grid of a 3D SimpleITK image; `meta` as above."""
        return cls(sitk.GetArrayFromImage(image), Geometry.from_image(image), meta)

    @property
    def modality(self) -> str | None:
        """DICOM modality such as 'CT' or 'MR'; None when the file does not say."""
        return self.meta.get("modality")

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know about this scan, in sentences."""
        return tuple(self.meta.get("warnings", ()))

    def with_array(self, array: np.ndarray, geometry: Geometry | None = None) -> "Volume":
        """Return the same scan with other numbers, on the same grid unless another is given."""
        return replace(self, array=array, geometry=geometry or self.geometry)


def nearest_to_identity(direction: np.ndarray) -> tuple[Permutation, Flips]:
    """Find the permutation and flips of a direction's columns that bring it nearest to the identity.

    Column c of the result is column `permutation[c]`, negated where `flips[c]`. A tie (a scan turned by
    exactly 45 degrees) is decided by the resulting matrices themselves, which are the same 48 however the
    scan is stored; so the choice does not depend on the storage either.
    """
    candidates = [
        (direction[:, list(order)] * np.where(flips, -1.0, 1.0), order, flips) for order, flips in all_orientations()
    ]
    best = max(np.trace(matrix) for matrix, _, _ in candidates)
    tied = [candidate for candidate in candidates if np.trace(candidate[0]) > best - TIE_TOLERANCE]
    _, order, flips = max(tied, key=lambda candidate: tuple(candidate[0].round(4).ravel()))
    return order, flips


def all_orientations() -> Iterator[tuple[Permutation, Flips]]:
    """List the 48 ways to permute and flip three axes."""
    return product(permutations(range(3)), product((False, True), repeat=3))  # type: ignore[return-value]


def _numbers(value: Any, shape: tuple[int, ...], name: str) -> np.ndarray:
    try:
        numbers = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise GeometryError(f"{name} is {value!r}; it must hold numbers only.") from error
    if numbers.size != np.prod(shape) or not np.isfinite(numbers).all():
        raise GeometryError(f"{name} is {value!r}; it must hold {int(np.prod(shape))} finite numbers.")
    return numbers.reshape(shape)


def _text(values: Sequence[float] | np.ndarray) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in np.ravel(values)) + ")"


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
