"""What a session's content says to the engine: its prompts, in the order in which they were given, and back.

Accepted slices are painted ones, and win; clicks on a slice that was painted or accepted later are painted over.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from slicecast.engine.session import Accept, Add, Content, Entry, Item, PackedMask, Painted
from slicecast.errors import PromptError
from slicecast.prompts import Absent, Box, Line, MaskPrompt, ObjectPrompts, Point, PromptSet

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Grid:
    """The stored grid as a session sees it."""

    shape_kji: tuple[int, int, int]  # of its array
    along: int  # the array's axis along which slices are counted

    def slice(self, array: NDArray, number: int) -> NDArray:
        """View a stored slice (H, W) of an array [k, j, i]."""
        return np.moveaxis(array, self.along, 0)[number]

    @property
    def shape_hw(self) -> tuple[int, int]:
        """Rows and columns of a stored slice."""
        rows, columns = (size for axis, size in enumerate(self.shape_kji) if axis != self.along)
        return rows, columns

    @property
    def place(self) -> int:
        """The slice number's place in (i, j, k)."""
        return 2 - self.along


def items_of(prompts: PromptSet, grid: Grid) -> list[tuple[str, Item]]:
    """Take a set of prompts apart: (object, item), points first, then lines, boxes, masks, absent slices."""
    found: list[tuple[str, Item]] = []
    for entry in prompts.objects:
        drawn = tuple(painted(mask, grid) for mask in entry.masks)
        items: tuple[Item, ...] = (*entry.points, *entry.lines, *entry.boxes, *drawn, *entry.absent)
        found += [(entry.name, item) for item in items]
    return found


def told(item: Item) -> tuple[str, list[Any]]:
    """Return the kind of a prompt in words, and what is told of it: voxels (i, j, k) or slices."""
    match item:
        case Point():
            return "inside" if item.positive else "outside", [list(item.ijk)]
        case Line():
            return "lines", [[list(vertex) for vertex in item.vertices]]
        case Box():
            return "boxes", [[list(item.low_ijk), list(item.high_ijk)]]
        case Absent():
            return "absent", [item.slice]
    return "painted", [number for number, _ in item.slices]


def painted(mask: MaskPrompt, grid: Grid) -> Painted:
    """Keep the painted slices of a mask.

    Raises:
        PromptError: it lies on another grid, or names a slice that there is not.
    """
    if mask.array.shape != grid.shape_kji:
        raise PromptError(
            f"A mask of shape {mask.array.shape} [k, j, i] does not fit the volume's {grid.shape_kji}. "
            "Resample it onto the volume's grid."
        )
    others = tuple(axis for axis in range(3) if axis != grid.along)
    numbers = np.flatnonzero(mask.array.any(axis=others)).tolist() if mask.slices is None else mask.slices
    count = grid.shape_kji[grid.along]
    if numbers and numbers[-1] >= count:
        raise PromptError(f"The mask is given for slice {numbers[-1]}; slices run from 0 to {count - 1}.")
    return Painted(tuple((n, PackedMask.of(grid.slice(mask.array, n))) for n in numbers))


def whole(mask: MaskPrompt, grid: Grid) -> Painted:
    """Keep a mask as all there is of its object: where it ends, an empty slice says so, so that no track goes on there.

    Raises:
        PromptError: it lies on another grid.
    """
    others = tuple(axis for axis in range(3) if axis != grid.along)
    told = ndimage.binary_dilation(mask.array.any(axis=others))
    return painted(replace(mask, slices=tuple(np.flatnonzero(told).tolist())), grid)


def prompt_set(content: Content, grid: Grid) -> PromptSet | None:
    """Return the prompts that the engine carries out; accepted slices are painted ones, and win.

    Objects without anything to start from wait. None: there is none but such.

    Raises:
        PromptError: prompts contradict each other.
    """
    objects = tuple(entry for name in content.objects if (entry := _object(content, name, grid)) is not None)
    return PromptSet(objects) if objects else None


def _object(content: Content, name: str, grid: Grid) -> ObjectPrompts | None:
    accepted = {number: mask for (owner, number), mask in content.accepted.items() if owner == name}
    closed = {number for number, mask in accepted.items() if mask.empty}
    said = [entry for entry in content.entries.values() if entry.object == name]
    given = _corrigible([_item(entry) for entry in _not_locked(said, grid)], grid)
    items = [item for item in given if not _hidden(item, accepted.keys(), closed, grid)]
    points = tuple(item for item in items if isinstance(item, Point))
    masks = _masks(items)
    until = {number: after for number, after in sorted(masks)}
    clicked = any(p.positive and n >= until.get(p.ijk[grid.place], 0) for n, p in enumerate(points))
    lines = tuple(i for i in items if isinstance(i, Line))
    boxes = tuple(i for i in items if isinstance(i, Box))
    if not (clicked or boxes or lines or any(not masks[place].empty for place in until.items())):
        return None
    empty = [Absent(number) for number, after in sorted(masks) if not after and masks[number, after].empty]
    absent = tuple(dict.fromkeys((*(i for i in items if isinstance(i, Absent)), *empty)))
    drawn = {place: mask for place, mask in masks.items() if place[1] or not mask.empty}
    volumes = tuple(_volume_mask(number, mask.unpack(), grid, after) for (number, after), mask in drawn.items())
    return ObjectPrompts(name, points, boxes, volumes, absent, lines)


def _item(entry: Entry) -> Item:
    return Painted(((entry.slice, entry.mask),)) if isinstance(entry, Accept) else entry.item


def _not_locked(said: Iterable[Entry], grid: Grid) -> Iterator[Entry]:
    """Leave out what was clicked or painted on slices that were accepted by then."""
    locked = set[int]()
    for entry in said:
        match entry:
            case Accept():
                locked.add(entry.slice)
            case Add(item=Point(ijk=ijk)) if ijk[grid.place] in locked:
                continue
            case Add(item=Painted(slices=slices)):
                yield replace(entry, item=Painted(tuple(drawn for drawn in slices if drawn[0] not in locked)))
                continue
        yield entry


LET_GO = 2
"""A click, line or box on a slice of what was painted as a volume, as a draft that was opened again, frees so many
slices on either side too: painted slices stand, so that the correction would reach no further than itself."""


def _corrigible(given: Sequence[Item], grid: Grid) -> list[Item]:
    """Take from each painted volume the slices near clicks, lines and boxes that were given later."""
    return [
        _freed(item, given[place:], grid) if isinstance(item, Painted) and len(item.slices) > 1 else item
        for place, item in enumerate(given, start=1)
    ]


def _freed(drawn: Painted, later: Sequence[Item], grid: Grid) -> Painted:
    """Free slices of a painted volume; where nothing of the object is left, only if the later prompts find it alone."""
    points = [item for item in later if isinstance(item, Point)]
    boxes = [item for item in later if isinstance(item, Box)]
    lines = [item for item in later if isinstance(item, Line)]
    numbers = {point.ijk[grid.place] for point in points} | {n for line in lines for n in line.span(grid.place)}
    numbers |= {(box.low_ijk[grid.place] + box.high_ijk[grid.place]) // 2 for box in boxes}
    for reach in (LET_GO, 0):
        left = tuple(entry for entry in drawn.slices if all(abs(entry[0] - number) > reach for number in numbers))
        if any(not mask.empty for _, mask in left):
            return Painted(left)
    return Painted(()) if boxes or lines or any(point.positive for point in points) else drawn


def _hidden(item: Item, accepted: Iterable[int], closed: Iterable[int], grid: Grid) -> bool:
    """Whether a prompt has no effect because its slice is accepted; a box only where that is empty."""
    match item:
        case Box():
            low, high = item.low_ijk[grid.place], item.high_ijk[grid.place]
            return low == high and low in closed
        case Absent():
            return item.slice in accepted
        case Point() | Painted() | Line():
            return False


def _masks(items: Iterable[Item]) -> dict[tuple[int, int], PackedMask]:
    """Return what was painted last, by slice and number of points before it; in the order painted."""
    points, found = 0, dict[tuple[int, int], PackedMask]()
    for item in items:
        match item:
            case Point():
                points += 1
            case Painted(slices=slices):
                found |= {(number, points): mask for number, mask in slices}
    return found


def _volume_mask(number: int, mask: Mask, grid: Grid, after: int) -> MaskPrompt:
    """Return a painted slice in a volume, which takes no memory where nothing is painted."""
    array = np.zeros(grid.shape_kji, dtype=bool)
    grid.slice(array, number)[...] = mask
    array.flags.writeable = False
    return MaskPrompt(array, (number,), after=after)
