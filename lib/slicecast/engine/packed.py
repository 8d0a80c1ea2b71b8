"""Masks of single slices, small enough to keep many of them."""

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 6
"""Of zlib: fixed, because packed masks are compared by their bytes."""


@dataclass(frozen=True, slots=True)
class PackedMask:
    """A mask (H, W), one bit a pixel, compressed; equal masks are equal values.

    Args:
        shape_hw: rows and columns.
        data: the bits, row by row, as `numpy.packbits` and zlib leave them.
    """

    shape_hw: tuple[int, int]
    data: bytes

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> "PackedMask":
        """Pack a mask, bool (H, W)."""
        rows, columns = mask.shape
        return cls((rows, columns), zlib.compress(np.packbits(mask, axis=None).tobytes(), LEVEL))

    def unpack(self) -> NDArray[np.bool_]:
        """Return the mask, bool (H, W)."""
        bits = np.frombuffer(zlib.decompress(self.data), dtype=np.uint8)
        rows, columns = self.shape_hw
        return np.unpackbits(bits, count=rows * columns).reshape(rows, columns).astype(bool)

    @property
    def empty(self) -> bool:
        """Whether no pixel is set."""
        return not any(zlib.decompress(self.data))
