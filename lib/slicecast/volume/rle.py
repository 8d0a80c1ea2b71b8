"""Masks of single slices as COCO run lengths: what many web clients read, and a few hundred bytes for an organ.

A mask (H, W) is read column by column. `counts` are the lengths of runs, of background first, written as COCO's
compressed text. Text from outside is checked before it is unpacked.
"""

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from slicecast.errors import PromptError

_FIRST, _LAST = 48, 111
"""Characters of the text: six bits each, the highest one saying that the number goes on."""


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
    lengths = np.array(_lengths(counts, limit=rows * columns + 2), dtype=np.int64)
    if (lengths < 0).any() or lengths.sum() != rows * columns:
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
