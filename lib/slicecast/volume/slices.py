"""How a canonical volume is cut into slices, and a slice's mask as text; stated here only.

Axial slices have x = i, y = j; coronal x = i, y = k; sagittal x = j, y = k. A pixel (x, y) is column x,
row y, integer = pixel centre. Everything here is in canonical (LPS) index space.

Masks of single slices can be written as COCO run lengths, which many web clients read: a few hundred bytes for an
organ. A mask (H, W) is read column by column; `counts` are the lengths of runs, of background first, as COCO's
compressed text.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from slicecast.errors import ConfigError, GeometryError, PromptError
from slicecast.volume.grid import Geometry

TIE_TOLERANCE = 0.01  # Spacings that differ by less than this share are equal when the slice axis is chosen
_FIRST, _LAST = 48, 111  # Characters of the text: six bits each, the highest one saying that the number goes on


class SliceAxis(IntEnum):
    """The canonical axis along which slices are counted; its value is its place in (i, j, k)."""

    SAGITTAL = 0
    CORONAL = 1
    AXIAL = 2

    @property
    def in_plane(self) -> tuple[int, int]:
        """The places in (i, j, k) of the slice's x and y."""
        return ((1, 2), (0, 2), (0, 1))[self]

    def to_slice(self, ijk: Any) -> np.ndarray:
        """Reorder voxel indices, (..., 3) as (i, j, k), to (..., 3) as (n, x, y)."""
        return np.asarray(ijk)[..., [int(self), *self.in_plane]]

    def to_ijk(self, n: Any, x: Any, y: Any) -> np.ndarray:
        """Combine slice numbers and pixels, scalars or (N,), to voxel indices (..., 3) as (i, j, k)."""
        parts: list[Any] = [None, None, None]
        for place, value in zip((int(self), *self.in_plane), (n, x, y), strict=True):
            parts[place] = value
        return np.stack(np.broadcast_arrays(*parts), axis=-1)

    def pixel_spacing_mm(self, geometry: Geometry) -> tuple[float, float]:
        """Spacing of a slice's pixels along (x, y) on a canonical grid."""
        x, y = self.in_plane
        return geometry.spacing_mm[x], geometry.spacing_mm[y]


def axis_named(name: str) -> SliceAxis | None:
    """Return an axis by its name, None for "auto"; raises ConfigError where there is none of that name."""
    chosen = str(name).strip().upper()
    if chosen != "AUTO" and chosen not in SliceAxis.__members__:
        raise ConfigError(f"Unknown slice axis '{name}'. Use auto, axial, coronal or sagittal.")
    return SliceAxis.__members__.get(chosen)


def choose_axis(geometry: Geometry, name: str | SliceAxis = "auto") -> SliceAxis:
    """Choose the slice axis of a canonical grid.

    "auto" takes the axis of the largest spacing, axial on a tie; one slice is cut along its thin axis.

    Raises:
        ConfigError: the name is none of auto, axial, coronal, sagittal.
    """
    named = name if isinstance(name, SliceAxis) else axis_named(name)
    if named is not None:
        return named
    thin = [axis for axis in SliceAxis if geometry.size_ijk[axis] == 1]
    candidates = thin or list(SliceAxis)
    largest = max(geometry.spacing_mm[axis] for axis in candidates)
    return max(axis for axis in candidates if geometry.spacing_mm[axis] >= largest * (1 - TIE_TOLERANCE))


@dataclass(frozen=True, slots=True, eq=False)
class SliceStack:
    """A canonical array [k, j, i] seen as slices (H, W) along one axis; no voxel is copied."""

    array: np.ndarray
    axis: SliceAxis

    @property
    def count(self) -> int:
        """Number of slices."""
        return self.array.shape[2 - self.axis]

    @property
    def shape_hw(self) -> tuple[int, int]:
        """Rows and columns of each slice."""
        x, y = self.axis.in_plane
        return self.array.shape[2 - y], self.array.shape[2 - x]

    def slice(self, n: int) -> np.ndarray:
        """View slice `n`, (H, W), rows y, columns x; raises GeometryError if there is no slice `n`."""
        if not 0 <= n < self.count:
            raise GeometryError(
                f"There is no {self.axis.name.lower()} slice {n}; the volume has slices 0 to {self.count - 1}."
            )
        return self._stacked()[n]

    def to_slice(self, ijk: Any) -> np.ndarray:
        """Reorder voxel indices, (..., 3) as (i, j, k), to (..., 3) as (n, x, y)."""
        return self.axis.to_slice(ijk)

    def to_ijk(self, n: Any, x: Any, y: Any) -> np.ndarray:
        """Combine slice numbers and pixels, scalars or (N,), to voxel indices (..., 3) as (i, j, k)."""
        return self.axis.to_ijk(n, x, y)

    def assemble(self, slices: Mapping[int, np.ndarray], *, dtype: Any = np.uint8) -> np.ndarray:
        """Put slices {n: (H, W)} back into a new array [k, j, i]; slices not given are 0.

        Raises:
            GeometryError: a slice number or shape does not fit.
        """
        out = SliceStack(np.zeros(self.array.shape, dtype=dtype), self.axis)
        for n, pixels in slices.items():
            target = out.slice(n)
            if np.shape(pixels) != target.shape:
                raise GeometryError(
                    f"Slice {n} has shape {np.shape(pixels)}; slices of this volume have {target.shape} (H, W)."
                )
            target[...] = pixels
        return out.array

    def _stacked(self) -> np.ndarray:
        return np.moveaxis(self.array, 2 - self.axis, 0)


class Rle(TypedDict):
    """A mask: [rows, columns] and run lengths."""

    size: list[int]
    counts: str


def encode_rle(mask: NDArray[np.bool_]) -> Rle:
    """Encode a mask, bool (H, W)."""
    flat = np.asarray(mask, dtype=bool).ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts_with_object = bool(flat.size and flat[0])
    edges = np.concatenate(([0], [0] if starts_with_object else [], changes, [flat.size])).astype(np.int64)
    return {"size": list(mask.shape), "counts": _text(np.diff(edges).tolist())}


def decode_rle(counts: str, shape_hw: tuple[int, int]) -> NDArray[np.bool_]:
    """Decode the text of a mask of that shape; return bool (H, W).

    Raises:
        PromptError: it is no such text, or of a mask of another size.
    """
    rows, columns = shape_hw
    lengths = _lengths(counts, limit=rows * columns + 2)
    if min(lengths, default=0) < 0 or sum(lengths) != rows * columns:  # exact: in 64 bits a sum may run over
        raise PromptError(
            f"The mask's runs do not add up to {rows} x {columns} pixels. Encode the whole slice, column by column."
        )
    values = np.arange(len(lengths)) % 2 == 1
    return np.repeat(values, lengths).reshape((rows, columns), order="F")


def _text(lengths: list[int]) -> str:
    """Write run lengths; from the fourth on each is the difference to the one before the last."""
    characters: list[str] = []
    for n, length in enumerate(lengths):
        number = length - lengths[n - 2] if n > 2 else length
        more = True
        while more:
            bits = number & 0x1F
            number >>= 5
            more = number != (-1 if bits & 0x10 else 0)
            characters.append(chr(_FIRST + (bits | 0x20 if more else bits)))
    return "".join(characters)


def _lengths(text: str, *, limit: int) -> list[int]:
    lengths: list[int] = []
    number = shift = 0
    for character in text:
        bits = ord(character) - _FIRST
        if not 0 <= bits <= _LAST - _FIRST or shift > 60 or len(lengths) > limit:
            raise PromptError("The mask's counts are no compressed run lengths as COCO writes them.")
        number |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            number -= (1 << shift) if bits & 0x10 else 0
            lengths.append(number + lengths[-2] if len(lengths) > 2 else number)
            number = shift = 0
    if shift:
        raise PromptError("The mask's counts end in the middle of a number.")
    return lengths


def box_of(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the box (4,) xyxy around a mask (H, W) that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1], rows[-1]], dtype=np.float32)
