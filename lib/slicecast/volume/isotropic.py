"""Isotropic grids for volumetric networks, and resampling onto them and back.

Both grids are those that the published models were trained on; positions are LPS mm, as everywhere.
"""

import numpy as np
import SimpleITK as sitk

from slicecast.volume.grid import Geometry, Reorientation, Volume


def ras_grid(stored: Geometry, spacing_mm: float) -> Geometry:
    """Return SAM-Med3D's grid: the scan's own axes, turned nearest to RAS, its middle kept; rounded down.

    Sizes and centre are those of torchio's Resample (1.2.1), which the model's published script uses.
    """
    lps = Reorientation.of(stored).geometry
    size = np.array(lps.size_ijk)
    extent = size * lps.spacing_mm
    fine = np.where(size == 1, 1, np.maximum(1, np.floor(extent / spacing_mm))).astype(int)
    middle = lps.index_to_world((size - 1) / 2)
    direction = lps.direction_matrix * (-1.0, -1.0, 1.0)
    origin = middle - direction @ ((fine - 1) / 2 * spacing_mm)
    return Geometry(tuple(fine), (spacing_mm,) * 3, tuple(origin), tuple(map(tuple, direction)))


def world_grid(stored: Geometry, spacing_mm: float) -> Geometry:
    """Return CT-SAM3D's grid: ITK's world axes, from the box of the voxel indices 0 and `size` along each axis.

    Along an axis that is stored backwards the first plane lies outside the scan, as in the published code.
    """
    ends = np.stack(np.meshgrid(*((0, n) for n in stored.size_ijk), indexing="ij"), axis=-1).reshape(-1, 3)
    corners = stored.index_to_world(ends).astype(np.float32)
    low, high = corners.min(axis=0), corners.max(axis=0)
    size = np.maximum(1, np.round((high - low) / np.float32(spacing_mm))).astype(int)
    return Geometry(tuple(size), (spacing_mm,) * 3, tuple(low.astype(float)))


def part_of(grid: Geometry, start_kji: tuple[int, int, int], shape_kji: tuple[int, int, int]) -> Geometry:
    """Return the grid of a box of voxels, which may reach beyond it."""
    return Geometry(shape_kji[::-1], grid.spacing_mm, tuple(grid.index_to_world(start_kji[::-1])), grid.direction)


def resample(image: sitk.Image, grid: Geometry, *, outside: float | None, nearest: bool = False) -> np.ndarray:
    """Return an image's values on a grid, [k, j, i]; linear, in the image's own type, unless `nearest`.

    Args:
        outside: value of what lies outside the image; None: that of the nearest voxel.
    """
    interpolator = sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear
    found = sitk.Resample(
        image,
        grid.size_ijk,
        sitk.Transform(),
        interpolator,
        grid.origin_mm,
        grid.spacing_mm,
        grid.direction_matrix.ravel().tolist(),
        outside or 0.0,
        image.GetPixelID(),
        outside is None,
    )
    return sitk.GetArrayFromImage(found)


class Isotropic:
    """A scan as its patches on an isotropic grid; each is resampled when asked for.

    Args:
        volume: the scan.
        grid: the isotropic grid.
        outside: value of what lies outside the scan; None: the scan mirrored at its faces.
    """

    def __init__(self, volume: Volume, grid: Geometry, *, outside: float | None) -> None:
        array = volume.array.astype(np.uint8) if volume.array.dtype == bool else volume.array
        self.grid, self.outside = grid, outside
        self._image = volume.geometry.to_image(array)

    def patch(self, start_kji: tuple[int, int, int], side: int) -> np.ndarray:
        """Return a cube as float32 [k, j, i]; where it reaches beyond the grid, what `outside` says."""
        starts, stops = np.maximum(0, start_kji), np.minimum(np.add(start_kji, side), self.grid.shape_kji)
        blank = np.float32(self.outside or 0.0)
        if not (starts < stops).all():
            return np.full((side,) * 3, blank, dtype=np.float32)
        part = part_of(self.grid, tuple(starts.tolist()), tuple((stops - starts).tolist()))
        inside = resample(self._image, part, outside=self.outside).astype(np.float32)
        margins = [(a - s, s + side - b) for s, a, b in zip(start_kji, starts.tolist(), stops.tolist(), strict=True)]
        if self.outside is None:
            return np.pad(inside, margins, mode="symmetric")
        return np.pad(inside, margins, constant_values=blank)
