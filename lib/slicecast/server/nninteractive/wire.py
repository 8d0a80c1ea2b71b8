"""Arrays as nnInteractive's clients send them: a short header, then chunks that blosc2 has compressed.

Header, little-endian: `NNIA`, version 1, codec (1 ZSTD, 2 LZ4), number of axes, length of the type's name, the name,
the shape in int64. Then the number of chunks in uint32, and before each chunk its length unpacked and packed, in
uint64.

What a chunk claims is compared with what is expected before a byte of it is unpacked.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import blosc2
import numpy as np
from numpy.typing import NDArray

from slicecast.errors import InputError, TooLarge

MAGIC, VERSION, ZSTD = b"NNIA", 1, 1
TYPES = frozenset(
    ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64")
)
MAX_AXES = 4
_FIXED, _COUNT, _LENGTHS = struct.Struct("<4s4B"), struct.Struct("<I"), struct.Struct("<QQ")

CHUNK_BYTES = 1 << 30  # Of one chunk unpacked; blosc2 counts in int32

_FRAME_BYTES, _FLAGS, _FILTERS, _MORE_FLAGS = 32, 2, slice(16, 22), 31
"""A blosc2 chunk's header, and what of it is looked at."""
_EXTENDED, _COPIED, _LAZY = 0b101, 0b10, 0b1000
_CODECS = (1, 4)  # LZ4 and ZSTD, in the highest three bits of a chunk's flags
_PLAIN_FILTERS = frozenset((0, 1, 2))
"""None, shuffle, bit shuffle. Other numbers are plug-ins that blosc2 would look for and load."""


@dataclass(frozen=True, slots=True)
class Announced:
    """What an array's header says of it."""

    dtype: np.dtype  # of its numbers
    shape: tuple[int, ...]  # of it
    start: int  # where the chunks begin

    @property
    def nbytes(self) -> int:
        """Bytes of the array unpacked."""
        return math.prod(self.shape) * self.dtype.itemsize


def announced(data: bytes) -> Announced:
    """Read an array's header; raises InputError if it is none."""
    try:
        magic, version, _, axes, length = _FIXED.unpack_from(data)
        name = data[_FIXED.size : _FIXED.size + length].decode("ascii")
        shape = struct.unpack_from(f"<{axes}q", data, _FIXED.size + length)
    except (struct.error, UnicodeDecodeError) as error:
        raise _malformed("it ends within its header") from error
    if magic != MAGIC or version != VERSION:
        raise _malformed(f"it begins with {magic!r}, version {version}, not with {MAGIC!r}, version {VERSION}")
    if name not in TYPES or not 1 <= axes <= MAX_AXES or min(shape) < 1:
        raise _malformed(f"it claims to be of type '{name[:20]}' and shape {shape}")
    return Announced(np.dtype(name), shape, _FIXED.size + length + 8 * axes)


def unpack(data: bytes, *, most_bytes: int) -> NDArray:
    """Return a sent array.

    Args:
        most_bytes: it may take unpacked.

    Raises:
        TooLarge: it would take more.
        InputError: it is malformed.
    """
    head = announced(data)
    if head.nbytes > most_bytes:
        raise TooLarge(
            f"The array of shape {head.shape} takes {head.nbytes >> 20} MiB; at most {most_bytes >> 20} MiB are taken."
        )
    array = np.empty(math.prod(head.shape), dtype=head.dtype)
    room, filled = array.data.cast("B"), 0
    for chunk, length in _chunks(memoryview(data), head.start):
        if filled + length > head.nbytes:
            raise _malformed("its chunks hold more than its shape")
        _unpack_chunk(chunk, room[filled : filled + length])
        filled += length
    if filled != head.nbytes:
        raise _malformed(f"its chunks hold {filled} bytes, its shape {head.nbytes}")
    return array.reshape(head.shape)


def pack(array: NDArray) -> bytes:
    """Return an array as clients read it, with ZSTD; meant for masks, which pack best without a filter."""
    array = np.ascontiguousarray(array)
    name = array.dtype.name.encode()
    head = (
        _FIXED.pack(MAGIC, VERSION, ZSTD, array.ndim, len(name)) + name + struct.pack(f"<{array.ndim}q", *array.shape)
    )
    raw = array.data.cast("B")
    parts = [raw[start : start + CHUNK_BYTES] for start in range(0, raw.nbytes, CHUNK_BYTES)]
    found = [head, _COUNT.pack(len(parts))]
    for part in parts:
        chunk = blosc2.compress2(
            part, typesize=array.itemsize, codec=blosc2.Codec.ZSTD, clevel=3, filters=[blosc2.Filter.NOFILTER]
        )
        found += [_LENGTHS.pack(part.nbytes, len(chunk)), chunk]
    return b"".join(found)


def _chunks(data: memoryview, at: int) -> Iterator[tuple[memoryview, int]]:
    """Yield each chunk and its length unpacked."""
    try:
        (count,) = _COUNT.unpack_from(data, at)
        at += _COUNT.size
        for _ in range(count):
            length, packed = _LENGTHS.unpack_from(data, at)
            at += _LENGTHS.size
            if at + packed > len(data):
                raise _malformed("it is cut off")
            yield data[at : at + packed], length
            at += packed
    except struct.error as error:
        raise _malformed("it is cut off") from error


def _unpack_chunk(chunk: memoryview, room: memoryview) -> None:
    if len(chunk) < _FRAME_BYTES or not _is_plain(chunk):
        raise _malformed("a chunk is not of blosc2 with ZSTD or LZ4")
    try:
        nbytes, packed, _ = blosc2.get_cbuffer_sizes(chunk)
        if nbytes != room.nbytes or packed != len(chunk):
            raise _malformed("a chunk's length is not the one that it claims")
        blosc2.decompress2(chunk, dst=room)
    except (RuntimeError, ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise _malformed("a chunk cannot be unpacked") from error


def _is_plain(chunk: memoryview) -> bool:
    """Tell whether a chunk needs nothing but what blosc2 itself brings."""
    flags, filters = chunk[_FLAGS], set(chunk[_FILTERS])
    extended = flags & _EXTENDED == _EXTENDED
    known = flags & _COPIED or flags >> 5 in _CODECS
    return bool(extended and known) and filters <= _PLAIN_FILTERS and not chunk[_MORE_FLAGS] & _LAZY


def _malformed(why: str) -> InputError:
    return InputError(f"The body is no array of this protocol: {why}. Send it with nninteractive-client 2.5.1 to 2.x.")
