"""A client's array and the stored volume: the same voxels, whose axes may be in another order or turned around.

3D Slicer sends [k, j, i], programs on nibabel [i, j, k], napari what its reader made of the file. Only the voxels tell.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, permutations, product

import numpy as np
from numpy.typing import NDArray

Three = tuple[int, int, int]

TOLERANCE = 1e-4
"""Of the range of a volume's values, by which two readings of one scan may differ: one scales in float32, one in 64."""
SPACING_SHARE = 0.01
"""By which two readings of one spacing may differ."""
PROBE = 16
"""Voxels along each axis that are compared before all are."""


@dataclass(frozen=True, slots=True)
class ArrayAxes:
    """How a client's array lies in the stored one."""

    shape_kji: Three  # of the stored array
    order: Three = (0, 1, 2)  # the stored axis of each axis of the client's array
    turned: tuple[bool, bool, bool] = (False, False, False)  # which of the client's axes count from the other end

    @property
    def shape(self) -> Three:
        """Shape of the client's array."""
        a, b, c = (self.shape_kji[axis] for axis in self.order)
        return a, b, c

    @property
    def _steps(self) -> tuple[slice, ...]:
        return tuple(slice(None, None, -1 if turned else None) for turned in self.turned)

    def to_client(self, stored: NDArray) -> NDArray:
        """View a stored array [k, j, i] as the client's."""
        return stored.transpose(self.order)[self._steps]

    def to_stored(self, sent: NDArray) -> NDArray:
        """View a client's array as the stored [k, j, i]."""
        return sent[self._steps].transpose(np.argsort(self.order))

    def range_kji(self, bounds: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return half-open bounds along the client's axes as half-open bounds along k, j, i."""
        found = [(0, 0)] * 3
        for axis, turned, size, (low, high) in zip(self.order, self.turned, self.shape, bounds, strict=True):
            found[axis] = (size - high, size - low) if turned else (low, high)
        return found


def all_axes(shape_kji: Three) -> Iterator[ArrayAxes]:
    """Yield every way in which an array can lie, the stored one first."""
    for order, turned in product(permutations(range(3)), product((False, True), repeat=3)):
        yield ArrayAxes(shape_kji, order, turned)  # type: ignore[arg-type]


def match(
    sent: NDArray, spacing_mm: Sequence[float], stored: NDArray, stored_spacing_kji: Sequence[float]
) -> ArrayAxes | None:
    """Return how a sent array lies in a stored volume [k, j, i]; None where they are not the same scan."""
    tolerance = TOLERANCE * (float(stored.max()) - float(stored.min()))
    for axes in all_axes(stored.shape):  # type: ignore[arg-type]
        spacing = [stored_spacing_kji[axis] for axis in axes.order]
        if axes.shape == sent.shape and np.allclose(spacing, spacing_mm, rtol=SPACING_SHARE, atol=0):
            turned = axes.to_client(stored)
            pairs = chain([(_probe(sent), _probe(turned))], zip(sent, turned, strict=True))
            if all(_close(first, second, tolerance) for first, second in pairs):
                return axes
    return None


def _probe(array: NDArray) -> NDArray:
    return array[tuple(slice(None, None, max(1, size // PROBE)) for size in array.shape)]


def _close(first: NDArray, second: NDArray, tolerance: float) -> bool:
    return bool((np.abs(first.astype(np.float64) - second) <= tolerance).all())
