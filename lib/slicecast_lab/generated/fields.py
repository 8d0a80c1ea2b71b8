"""Smooth random functions of (x, y, z), cheap at any set of slices and any window.

A field is a grid of normal numbers under cubic B-splines. Along each axis a field is separable, so its values on a
raster are three small matrix products, whatever the window: zooming in needs no resampling.

World coordinates: x and y in [-1, 1] over the whole scene, z in slices with the prompted slice at 0.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Raster:
    """Where a scene is looked at: pixel centres of T slices of n x n pixels."""

    x: Array  # (n,) float32 world x of the columns
    y: Array  # (n,) float32 world y of the rows
    z: Array  # (T,) float32 slice positions

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return (T, rows, columns)."""
        return len(self.z), len(self.y), len(self.x)

    def mesh(self) -> tuple[Array, Array]:
        """Return world x and y, each (1, rows, columns)."""
        x, y = np.meshgrid(self.x, self.y)
        return x[None], y[None]


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """Smooth noise of several channels."""

    knots: Array  # (C, gz, gy, gx) float32 spline coefficients
    z_range: tuple[float, float]  # slices that the knots span

    def values(self, raster: Raster) -> Array:
        """Return (C, T, rows, columns) float32."""
        channels, gz, gy, gx = self.knots.shape
        along_x = self.knots @ _basis((raster.x + 1) / 2, gx).T
        along_y = np.matmul(_basis((raster.y + 1) / 2, gy), along_x)
        low, high = self.z_range
        along_z = np.matmul(_basis((raster.z - low) / (high - low), gz), along_y.reshape(channels, gz, -1))
        return along_z.reshape(channels, *raster.shape)


def random_field(
    rng: np.random.Generator, channels: int, *, cells_xy: int, slices_per_cell: float, z_range: tuple[float, float]
) -> Field:
    """Draw a field with about unit variance.

    Args:
        cells_xy: spline cells across the scene.
        slices_per_cell: how slowly it changes from slice to slice.
        z_range: slices to cover.
    """
    cells_z = max(1, round((z_range[1] - z_range[0]) / slices_per_cell))
    shape = (channels, cells_z + 3, cells_xy + 3, cells_xy + 3)
    # A cubic B-spline of white noise keeps about 0.48 of its variance along each axis.
    knots = rng.standard_normal(shape, dtype=np.float32) / np.float32(0.48**1.5)
    return Field(knots, z_range)


def _basis(t: Array, knots: int) -> Array:
    """Return the (N, knots) weights of a uniform cubic B-spline at t in [0, 1]; mirrored outside.

    A clamped field would be the same all the way out: stripes where a window reaches past the scene.
    """
    cells = knots - 3
    scaled = (1 - np.abs(1 - np.mod(t, 2))) * cells
    cell = np.minimum(scaled.astype(np.int64), cells - 1)
    f = (scaled - cell).astype(np.float32)
    weights = np.stack([(1 - f) ** 3, 3 * f**3 - 6 * f**2 + 4, -3 * f**3 + 3 * f**2 + 3 * f + 1, f**3], axis=1)
    out = np.zeros((len(t), knots), dtype=np.float32)
    np.put_along_axis(out, cell[:, None] + np.arange(4), weights / 6, axis=1)
    return out
