"""What nnInteractive's clients draw, as prompts of our sessions, in stored voxels.

| drawn | becomes |
|---|---|
| point | a point |
| box on a slice | a box |
| box on a plane across the slices | points inside it |
| 3D box | a 3D box: extent, and a first guess on its middle slice |
| lasso on a slice | the box around it, and a point deep inside |
| scribble; lasso across the slices; what does not belong to the object | points spread over it |
| initial segmentation | painted slices, with an empty one wherever they end |

Masks come as arrays: a short header, then chunks that blosc2 has compressed. Header, little-endian: `NNIA`, version
1, codec (1 ZSTD, 2 LZ4), number of axes, length of the type's name, the name, the shape in int64. Then the number of
chunks in uint32, and before each chunk its length unpacked and packed, in uint64. What a chunk claims is compared
with what is expected before a byte of it is unpacked.
"""

import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import blosc2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.distance import cdist

from slicecast.engine.session import Add, Item, Painted
from slicecast.engine.session_prompts import Grid, whole
from slicecast.errors import InputError, PromptError, TooLarge
from slicecast.prompts import Box, Line, MaskPrompt, Point

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


Bounds = list[tuple[int, int]]  # Half-open, along k, j, i
POINTS = 5  # At most so many points stand for a region
DEEP = 0.5  # They lie at least at this share of the region's greatest depth


def point(ijk: tuple[int, int, int], *, positive: bool) -> list[Item]:
    """Return a click."""
    return [Point(ijk, positive=positive)]


def box(bounds: Bounds, grid: Grid, *, positive: bool) -> list[Item]:
    """Return a box, half-open along k, j, i."""
    sizes = [high - low for low, high in bounds]
    flat = [axis for axis, size in enumerate(sizes) if size == 1]
    if not positive or len(flat) > 1 or (flat and flat != [grid.along]):
        return _points(_deep(np.ones(sizes, dtype=bool)), bounds, positive=positive)
    low, high = ([bound[end] - end for bound in bounds] for end in (0, 1))
    return [Box(_ijk(low), _ijk(high))]


def region(mask: NDArray[np.bool_], bounds: Bounds, grid: Grid, *, positive: bool, filled: bool) -> list[Item]:
    """Return a scribble or, `filled`, a lasso: a mask of the voxels within bounds.

    Raises:
        PromptError: nothing is drawn.
    """
    drawn = np.argwhere(mask)
    if not len(drawn):
        raise PromptError("The scribble or lasso is empty. Draw it on the image.")
    low, high = drawn.min(axis=0), drawn.max(axis=0) + 1
    mask = mask[tuple(map(slice, low, high))]
    bounds = [(start + int(a), start + int(b)) for (start, _), a, b in zip(bounds, low, high, strict=True)]
    places = _deep(mask)
    if filled and positive and mask.shape[grid.along] == 1 and sorted(mask.shape)[1] > 1:
        return [*box(bounds, grid, positive=True), *_points(places[:1], bounds, positive=True)]
    return _points(places, bounds, positive=positive)


def segmentation(mask: NDArray[np.bool_], grid: Grid) -> list[Item]:
    """Return an initial segmentation [k, j, i], which stands but near later prompts; nothing for an empty one."""
    return [whole(MaskPrompt(mask), grid)] if mask.any() else []


def together(earlier: Iterable[Add], new: Sequence[Item], grid: Grid) -> list[Item]:
    """Return all prompts that count once new ones are given; what contradicts these yields to them."""
    kept = [prompt.item for prompt in earlier if not any(_yields(prompt.item, item, grid) for item in new)]
    return _unconfined([*kept, *new], grid)


def starts(items: Iterable[Item]) -> bool:
    """Tell whether there is anything from which an object can be found."""
    return any(
        item.positive if isinstance(item, Point) else isinstance(item, Box | Line) or _drawn(item) for item in items
    )


def _yields(old: Item, new: Item, grid: Grid) -> bool:
    """Tell whether an earlier prompt cannot stand beside a new one: the engine refuses them together."""
    if isinstance(old, Point) and isinstance(new, Point):
        return old.ijk == new.ijk and old.positive != new.positive
    if isinstance(old, Box) and isinstance(new, Box):
        first, second = (item.low_ijk[grid.place] + item.high_ijk[grid.place] for item in (old, new))
        return abs(first - second) <= 1  # twice the middle slices, which may be rounded either way
    return False


def _unconfined(items: list[Item], grid: Grid) -> list[Item]:
    """Flatten 3D boxes where another prompt lies outside of the extent that they claim."""
    boxes = [item for item in items if isinstance(item, Box)]
    spans = [(box.low_ijk[grid.place], box.high_ijk[grid.place]) for box in boxes]
    if not boxes or any(low == high for low, high in spans):
        return items
    first, last = min(low for low, _ in spans), max(high for _, high in spans)
    others = [n for item in items if isinstance(item, Point | Line) or _drawn(item) for n in _slices(item, grid)]
    if all(first <= n <= last for n in others):
        return items
    return [_flattened(item, grid) if isinstance(item, Box) else item for item in items]


def _flattened(box: Box, grid: Grid) -> Box:
    low, high = list(box.low_ijk), list(box.high_ijk)
    low[grid.place] = high[grid.place] = (low[grid.place] + high[grid.place]) // 2
    return Box(_three(low), _three(high))


def _slices(item: Item, grid: Grid) -> list[int]:
    match item:
        case Point():
            return [item.ijk[grid.place]]
        case Line():
            return list(item.span(grid.place))
        case Box():
            return [item.low_ijk[grid.place], item.high_ijk[grid.place]]
        case Painted():
            return [number for number, mask in item.slices if not mask.empty]
        case _:
            return [item.slice]


def _drawn(item: Item) -> bool:
    return isinstance(item, Painted) and any(not mask.empty for _, mask in item.slices)


def _deep(mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return places (N, 3) far inside a region and far from each other, the deepest first."""
    thick = tuple(axis for axis, size in enumerate(mask.shape) if size > 1)
    flat = mask.reshape([mask.shape[axis] for axis in thick] or [1])
    depth = ndimage.distance_transform_edt(np.pad(flat, 1))[(slice(1, -1),) * flat.ndim]
    places = np.argwhere(depth >= DEEP * depth.max())
    chosen = [int(depth[tuple(places.T)].argmax())]
    for _ in range(POINTS - 1):
        distance = cdist(places, places[chosen]).min(axis=1)
        if distance.max() < 2:
            break
        chosen.append(int(distance.argmax()))
    found = np.zeros((len(chosen), 3), dtype=np.intp)
    found[:, thick or (0,)] = places[chosen]
    return found


def _points(places: NDArray[np.intp], bounds: Bounds, *, positive: bool) -> list[Item]:
    starts = np.array([low for low, _ in bounds])
    return [Point(_ijk(place), positive=positive) for place in (places + starts).tolist()]


def _ijk(kji: Sequence[int]) -> tuple[int, int, int]:
    return _three(kji[::-1])


def _three(values: Sequence[int]) -> tuple[int, int, int]:
    first, second, third = map(int, values)
    return first, second, third
