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
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.distance import cdist

from slicecast.engine.session import Add, Grid, Item, Painted, whole
from slicecast.errors import PromptError
from slicecast.prompts import Box, MaskPrompt, Point

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
    return any(item.positive if isinstance(item, Point) else isinstance(item, Box) or _drawn(item) for item in items)


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
    others = [n for item in items if isinstance(item, Point) or _drawn(item) for n in _slices(item, grid)]
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
