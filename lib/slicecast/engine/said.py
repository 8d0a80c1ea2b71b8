"""Between a session's content and the prompts that the engine carries out."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slicecast.engine.packed import PackedMask
from slicecast.engine.session import Content, Item, Painted
from slicecast.errors import PromptError
from slicecast.prompts import Absent, Box, MaskPrompt, ObjectPrompts, Point, PromptSet

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Grid:
    """The stored grid as a session sees it.

    Args:
        shape_kji: of its array.
        along: the array's axis along which slices are counted.
    """

    shape_kji: tuple[int, int, int]
    along: int

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
    """Take a set of prompts apart: (object, item), the objects' points first, then boxes, masks, absent slices."""
    found: list[tuple[str, Item]] = []
    for entry in prompts.objects:
        drawn = tuple(painted(mask, grid) for mask in entry.masks)
        items: tuple[Item, ...] = (*entry.points, *entry.boxes, *drawn, *entry.absent)
        found += [(entry.name, item) for item in items]
    return found


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
    said = [p.item for p in content.prompts.values() if p.object == name]
    items = [item for item in said if not _hidden(item, accepted.keys(), closed, grid)]
    masks = _masks([i for i in items if isinstance(i, Painted)], accepted)
    drawn = {number: mask.unpack() for number, mask in masks.items() if not mask.empty}
    empty = [Absent(number) for number in sorted(masks.keys() - drawn.keys())]
    points = tuple(i for i in items if isinstance(i, Point))
    boxes = tuple(i for i in items if isinstance(i, Box))
    if not (drawn or boxes or any(point.positive for point in points)):
        return None
    absent = tuple(dict.fromkeys((*(i for i in items if isinstance(i, Absent)), *empty)))
    volumes = tuple(_volume_mask(number, mask, grid) for number, mask in drawn.items())
    return ObjectPrompts(name, points, boxes, volumes, absent)


def _hidden(item: Item, accepted: Iterable[int], closed: Iterable[int], grid: Grid) -> bool:
    """Whether a prompt says nothing because its slice is accepted; clicks and boxes only where that is empty."""
    match item:
        case Point():
            return item.ijk[grid.place] in closed
        case Box():
            low, high = item.low_ijk[grid.place], item.high_ijk[grid.place]
            return low == high and low in closed
        case Absent():
            return item.slice in accepted
        case Painted():
            return False


def _masks(given: Iterable[Painted], accepted: dict[int, PackedMask]) -> dict[int, PackedMask]:
    """Return the mask of each slice in the order painted: what was accepted, else what was painted last."""
    painted_last = {number: mask for entry in given for number, mask in entry.slices}
    return {**painted_last, **accepted}


def _volume_mask(number: int, mask: Mask, grid: Grid) -> MaskPrompt:
    """Return a painted slice in a volume, which takes no memory where nothing is painted."""
    array = np.zeros(grid.shape_kji, dtype=bool)
    grid.slice(array, number)[...] = mask
    array.flags.writeable = False
    return MaskPrompt(array, (number,))
