"""A scan in memory: numbers, where they lie, and what is known about them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from slicecast.errors import VolumeError
from slicecast.volume.grid import Geometry


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
