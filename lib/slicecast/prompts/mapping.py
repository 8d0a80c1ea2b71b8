"""Maps prompts from the stored volume to the pixels of canonical slices, and back.

A voxel's path: stored (i, j, k) -> canonical (i, j, k) -> slice n, pixel (x, y). Nothing is rounded.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from slicecast.errors import PromptError
from slicecast.prompts.model import Box, Line, MaskPrompt, ObjectPrompts, Point, PromptSet
from slicecast.volume import Reorientation, SliceAxis, SliceStack

MAX_OBJECTS = 255  # Labels are uint8

_ON_ONE_SLICE = " on one slice. Give one a slice, or make another object of it."


def _no_points() -> np.ndarray:
    return np.zeros((0, 2), dtype=np.float32)


def _no_labels() -> np.ndarray:
    return np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class SlicePrompt:
    """All prompts of one object on one canonical slice."""

    slice: int  # canonical slice number
    points_xy: np.ndarray = field(default_factory=_no_points)  # float32 (N, 2), pixels (x, y)
    labels: np.ndarray = field(default_factory=_no_labels)  # int64 (N,), 1 on the object, 0 off it
    box_xyxy: np.ndarray | None = None  # float32 (4,), pixels, corners included; or None
    mask: np.ndarray | None = None  # bool (H, W); or None
    absent: bool = False  # the slice does not show the object; then nothing else is given
    order: int = 0  # place of the slice's first positive point among all points of the object
    passed: bool = False  # a line passes it on its way, and nothing else is said of it
    late: bool = False  # a positive click that still counts, or a line, came before the slice's mask
    drawn: int = 0  # place of the slice's mask or box among all masks and boxes of the object, masks first

    @property
    def starts(self) -> bool:
        """Whether the object can be found from this slice alone: a positive point, a box or a mask."""
        return self.box_xyxy is not None or self.mask is not None or bool((self.labels == 1).any())


def to_slice_prompts(
    prompt_set: PromptSet, reorientation: Reorientation, axis: SliceAxis
) -> dict[str, tuple[SlicePrompt, ...]]:
    """Collect each object's prompts by canonical slice, ascending, one SlicePrompt a slice.

    A box that spans several slices is put on its middle slice; `slice_ranges` gives the extent it stands for.

    Raises:
        PromptError: a prompt lies outside the volume or on another grid, a slice is marked both empty and
            not, or an object has two boxes or two masks on one slice.
    """
    prompt_set.check(reorientation.source)
    return {entry.name: _slice_prompts(entry, reorientation, axis) for entry in prompt_set.objects}


def place(
    prompt_set: PromptSet, reorientation: Reorientation, axis: SliceAxis, *, within: tuple[int, int] | None = None
) -> tuple[dict[str, tuple[SlicePrompt, ...]], dict[str, tuple[int, int]]]:
    """Bring prompts to canonical slices; also give the half-open range of them to which each object is confined.

    A line begins and ends with the object; what is said of slices beyond it takes that further.

    Args:
        within: half-open, slices along the axis, counted as stored. Default: all.

    Raises:
        PromptError: there are too many objects, a prompt lies outside the range, or what `to_slice_prompts` raises.
    """
    if len(prompt_set.objects) > MAX_OBJECTS:
        raise PromptError(
            f"{len(prompt_set.objects)} objects were given; one mask holds at most {MAX_OBJECTS}. "
            "Segment them in several requests."
        )
    prompts = to_slice_prompts(prompt_set, reorientation, axis)
    low, high = _canonical_range(within, reorientation, axis)
    extents = slice_ranges(prompt_set, reorientation, axis)
    for entry in prompt_set.objects:
        if entry.lines and extents[entry.name] is None:
            shown = [prompt.slice for prompt in prompts[entry.name] if not prompt.absent]
            extents[entry.name] = min(shown), max(shown) + 1
    found = {name: extent or (low, high) for name, extent in extents.items()}
    limits = {name: (max(first, low), min(end, high)) for name, (first, end) in found.items()}
    for name, (first, end) in limits.items():
        for prompt in prompts[name]:
            if not first <= prompt.slice < end and not prompt.absent:
                stored = reorientation.to_source_slice(axis, prompt.slice)
                raise PromptError(
                    f"'{name}' has a prompt on {axis.name.lower()} slice {stored}, outside the range or the 3D box "
                    "it is confined to. Widen that or remove the prompt."
                )
    return prompts, limits


def _canonical_range(asked: tuple[int, int] | None, reorientation: Reorientation, axis: SliceAxis) -> tuple[int, int]:
    count = reorientation.geometry.size_ijk[axis]
    start, stop = asked or (0, count)
    if not 0 <= start < stop <= count:
        raise PromptError(
            f"The range {start}:{stop} does not fit the {count} {axis.name.lower()} slices. "
            f"Give start:stop with 0 <= start < stop <= {count}."
        )
    ends = sorted(reorientation.to_canonical_slice(axis, n) for n in (start, stop - 1))
    return ends[0], ends[1] + 1


def first_clicked(prompts: Iterable[SlicePrompt]) -> SlicePrompt:
    """Return the slice that the annotator clicked on first: later prompts are corrections.

    Args:
        prompts: of one object; at least one has a positive point.
    """
    return min((p for p in prompts if (p.labels == 1).any()), key=lambda p: (p.order, p.slice))


def found_by_click(prompts: Iterable[SlicePrompt]) -> SlicePrompt | None:
    """Return the slice that the annotator clicked on first; None where something had been drawn or boxed by then."""
    given = list(prompts)
    clicked = [p for p in given if p.mask is None and (p.labels == 1).any()]
    if not clicked or any(p.box_xyxy is not None or (p.mask is not None and not p.late) for p in given):
        return None
    return first_clicked(clicked)


def slice_ranges(
    prompt_set: PromptSet, reorientation: Reorientation, axis: SliceAxis
) -> dict[str, tuple[int, int] | None]:
    """Give the half-open range of canonical slices to which each object's 3D boxes confine it, or None."""
    ranges: dict[str, tuple[int, int] | None] = {}
    for entry in prompt_set.objects:
        spans = [_canonical_corners(box, reorientation)[:, axis] for box in entry.boxes]
        deep = [span for span in spans if span[1] > span[0]]
        confined = bool(deep) and len(deep) == len(spans)
        ranges[entry.name] = (int(min(deep, key=min)[0]), int(max(s[1] for s in deep)) + 1) if confined else None
    return ranges


def slice_to_source_ijk(reorientation: Reorientation, axis: SliceAxis, *, n: int, xy: np.ndarray) -> np.ndarray:
    """Map pixels (N, 2) as (x, y) of canonical slice `n` to stored voxel indices (N, 3)."""
    pixels = np.asarray(xy)
    return reorientation.to_source_ijk(axis.to_ijk(n, pixels[..., 0], pixels[..., 1]))


def _slice_prompts(entry: ObjectPrompts, reorientation: Reorientation, axis: SliceAxis) -> tuple[SlicePrompt, ...]:
    boxes = _unique(_placed_boxes(entry, reorientation, axis), f"'{entry.name}' has two boxes")
    painted = painted_slices(entry, reorientation, axis)
    masks = {n: mask for n, mask in painted.items() if mask.any()}
    places = {n: place for place, n in enumerate(dict.fromkeys((*masks, *boxes)))}
    absent = _absent_slices(entry, reorientation, axis) | (painted.keys() - masks.keys())
    points = _points_by_slice(entry, reorientation, axis, told=absent | masks.keys())
    for n in sorted(absent):
        if n in points or n in boxes or n in masks:
            raise PromptError(
                f"Slice {reorientation.to_source_slice(axis, n)} of '{entry.name}' is marked as not showing "
                "it, but has other prompts. Remove one or the other."
            )
    if not (boxes or masks or any(rows[:, 2].any() for rows in points.values())):
        raise PromptError(f"Every painted slice of '{entry.name}' is empty. Paint it on one slice, or click on it.")
    numbers = sorted(points.keys() | boxes.keys() | masks.keys() | absent)
    prompts = (_one_slice(n, points, boxes, masks) if n not in absent else SlicePrompt(n, absent=True) for n in numbers)
    late = _late_masks(entry, reorientation, axis)
    return tuple(replace(p, drawn=places.get(p.slice, 0), late=p.slice in late) for p in prompts)


def _one_slice(
    n: int, points: dict[int, np.ndarray], boxes: dict[int, np.ndarray], masks: dict[int, np.ndarray]
) -> SlicePrompt:
    xyp = points.get(n, np.zeros((0, 5)))
    first = xyp[xyp[:, 2] == 1, 3]
    return SlicePrompt(
        n,
        points_xy=xyp[:, :2].astype(np.float32),
        labels=xyp[:, 2].astype(np.int64),
        box_xyxy=boxes.get(n),
        mask=masks.get(n),
        order=int(first.min()) if first.size else 0,
        passed=bool(len(xyp)) and bool(xyp[:, 4].all()) and n not in boxes,
    )


def _points_by_slice(
    entry: ObjectPrompts, reorientation: Reorientation, axis: SliceAxis, *, told: Collection[int]
) -> dict[int, np.ndarray]:
    """Return {slice: (N, 5) columns x, y, positive, place, passed}: where lines pass, then the clicks in order.

    A voxel counts once, a click before a line. What is painted or absent (`told`) counts before a line, too.
    """
    voxels = {voxel: one for line in entry.lines for voxel, one in _passed(line, reorientation, axis, told).items()}
    for click in dict.fromkeys(standing_points(entry, reorientation, axis)):
        voxel = tuple(axis.to_slice(reorientation.to_canonical_ijk(click.ijk)).tolist())
        voxels.pop(voxel, None)
        voxels[voxel] = (int(click.positive), 0)
    found: dict[int, list[tuple[int, int, int, int, int]]] = {}
    for place, ((n, x, y), (positive, passed)) in enumerate(voxels.items()):
        found.setdefault(n, []).append((x, y, positive, place, passed))
    return {n: np.array(entries) for n, entries in found.items()}


def _passed(
    line: Line, reorientation: Reorientation, axis: SliceAxis, told: Collection[int]
) -> dict[tuple[int, int, int], tuple[int, int]]:
    """Return {(slice, x, y): (1, passed)} where a line passes the slices that are not told, from the middle outwards.

    On the middle slice it is a click, from which the object is found: at its ends the object is small.
    """
    vertices = axis.to_slice(reorientation.to_canonical_ijk(line.vertices)).astype(int)
    voxels = {voxel for start, end in pairwise(vertices) for voxel in straight(start, end) if voxel[0] not in told}
    ends = int(vertices[:, 0].min() + vertices[:, 0].max())
    outwards = sorted(voxels, key=lambda voxel: (abs(2 * voxel[0] - ends), voxel))
    return {voxel: (1, int(voxel[0] != outwards[0][0])) for voxel in outwards}


def straight(start: Sequence[int], end: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return where the straight way between two voxels (slice, x, y) passes each slice, both included; halves go up."""
    low, high = np.asarray(start), np.asarray(end)
    steps = max(abs(int(high[0] - low[0])), 1)
    done = np.arange(steps + 1)[:, None]
    return [tuple(voxel) for voxel in ((2 * (low * (steps - done) + high * done) + steps) // (2 * steps)).tolist()]


def _placed_boxes(
    entry: ObjectPrompts, reorientation: Reorientation, axis: SliceAxis
) -> Iterator[tuple[int, np.ndarray]]:
    for box in entry.boxes:
        (n0, x0, y0), (n1, x1, y1) = axis.to_slice(_canonical_corners(box, reorientation)).tolist()
        if n1 > n0 and (x0 == x1 or y0 == y1):
            raise PromptError(
                f"The box {box.low_ijk} to {box.high_ijk} of '{entry.name}' is flat, but not along the "
                f"{axis.name.lower()} axis: it shows no area on any slice. Draw it on one slice, or "
                "choose another axis."
            )
        yield (n0 + n1) // 2, np.array([x0, y0, x1, y1], dtype=np.float32)


def _canonical_corners(box: Box, reorientation: Reorientation) -> np.ndarray:
    """Return the sorted corners of a box, (2, 3) canonical (i, j, k)."""
    return np.sort(reorientation.to_canonical_ijk([box.low_ijk, box.high_ijk]), axis=0)


def standing_points(entry: ObjectPrompts, reorientation: Reorientation, axis: SliceAxis) -> tuple[Point, ...]:
    """Return an object's points without those that a later mask of their slice painted over, or a later point undid."""
    return tuple(_standing(entry, reorientation, axis).values())


def _standing(entry: ObjectPrompts, reorientation: Reorientation, axis: SliceAxis) -> dict[int, Point]:
    """Return the points that stand by their places among all of the object."""
    points, until = dict(enumerate(entry.points)), _points_before(entry, reorientation, axis)
    if not any(until.values()):
        return points
    numbers = [int(axis.to_slice(reorientation.to_canonical_ijk(point.ijk))[0]) for point in entry.points]
    standing = {place: point for place, point in points.items() if place >= until.get(numbers[place], 0)}
    last = {point.ijk: point for point in standing.values()}
    return {place: point for place, point in standing.items() if point == last[point.ijk]}


def _points_before(entry: ObjectPrompts, reorientation: Reorientation, axis: SliceAxis) -> dict[int, int]:
    """Return how many points came before the last mask of each painted canonical slice."""
    return {n: mask.after for mask in _in_order(entry) for n in _numbers(mask, entry.name, reorientation, axis)}


def _late_masks(entry: ObjectPrompts, reorientation: Reorientation, axis: SliceAxis) -> set[int]:
    """Return the canonical slices that were painted after a positive click that stands, or a line, found the object."""
    standing = _standing(entry, reorientation, axis)
    places = [0] if entry.lines else [place for place, point in standing.items() if point.positive]
    return {n for n, after in _points_before(entry, reorientation, axis).items() if places and after > places[0]}


def painted_slices(entry: ObjectPrompts, reorientation: Reorientation, axis: SliceAxis) -> dict[int, np.ndarray]:
    """Return what is painted of an object, bool (H, W) by canonical slice; empty where it is not there.

    Raises:
        PromptError: a mask names a slice that there is not, or two have one slice and came after equally many points.
    """
    found: dict[int, tuple[int, np.ndarray]] = {}
    for mask in _in_order(entry):
        stack = SliceStack(reorientation.to_canonical_array(mask.array), axis)
        for n in _numbers(mask, entry.name, reorientation, axis):
            if n in found and found[n][0] == mask.after:
                raise PromptError(f"'{entry.name}' has two masks{_ON_ONE_SLICE}")
            found[n] = mask.after, np.ascontiguousarray(stack.slice(n))
    return {n: painted for n, (_, painted) in found.items()}


def _in_order(entry: ObjectPrompts) -> list[MaskPrompt]:
    return sorted(entry.masks, key=lambda mask: mask.after)


def _numbers(mask: MaskPrompt, name: str, reorientation: Reorientation, axis: SliceAxis) -> list[int]:
    """Return the canonical slices for which a mask is given."""
    if mask.slices is not None:
        return [_canonical_number(n, reorientation, axis, f"The mask of '{name}'") for n in mask.slices]
    array = SliceStack(reorientation.to_canonical_array(mask.array), axis).array
    return np.flatnonzero(array.any(axis=tuple(2 - place for place in axis.in_plane))).tolist()


def _absent_slices(entry: ObjectPrompts, reorientation: Reorientation, axis: SliceAxis) -> set[int]:
    what = f"A slice without '{entry.name}'"
    return {_canonical_number(mark.slice, reorientation, axis, what) for mark in entry.absent}


def _canonical_number(number: int, reorientation: Reorientation, axis: SliceAxis, what: str) -> int:
    count = reorientation.source.size_ijk[reorientation.permutation[axis]]
    if number >= count:
        raise PromptError(
            f"{what} is given as slice {number}; the {axis.name.lower()} slices run from 0 to {count - 1}."
        )
    return reorientation.to_canonical_slice(axis, number)


def _unique(pairs: Iterator[tuple[int, np.ndarray]], what: str) -> dict[int, np.ndarray]:
    found: dict[int, np.ndarray] = {}
    for n, value in pairs:
        if n in found:
            raise PromptError(what + _ON_ONE_SLICE)
        found[n] = value
    return found
