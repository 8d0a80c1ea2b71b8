"""Prompts of the annotator: points, lines, boxes, masks and empty slices of one or several objects, also from text.

Everything is in the volume's own stored index space, as the client sends it: voxel (i, j, k), 0-based. Slice
numbers count along the stored axis that becomes the slice axis. Values are valid from construction on;
`PromptSet.check` compares them with the volume they are meant for. On a command line a prompt is ``spleen=120,96,40``.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from slicecast.errors import PromptError
from slicecast.volume import Geometry, read_volume

IJK = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Point:
    """A click on voxel (i, j, k): on the object, or (positive=False) off it."""

    ijk: IJK
    positive: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "ijk", _voxel(self.ijk, "Point"))


MOST_LINE_VOXELS = 10_000  # Length of a line


@dataclass(frozen=True, slots=True)
class Line:
    """A line that runs inside the object, straight from vertex to vertex, each a voxel (i, j, k).

    It passes all slices of the object: where it begins and ends, so does the object. A vertex given twice in a row
    counts once; at least two are left.
    """

    vertices: tuple[IJK, ...]

    def __post_init__(self) -> None:
        if isinstance(self.vertices, str) or not isinstance(self.vertices, Iterable):
            raise PromptError(f"A line is given as {self.vertices!r}. Give its vertices, voxel indices i, j, k.")
        vertices = tuple(vertex for vertex, _ in groupby(_voxel(vertex, "Line vertex") for vertex in self.vertices))
        if len(vertices) < 2:
            raise PromptError("A line has fewer than two different vertices. Give one more, or use a point.")
        object.__setattr__(self, "vertices", vertices)
        if self.voxels > MOST_LINE_VOXELS:
            raise PromptError(f"A line is {self.voxels} voxels long; at most {MOST_LINE_VOXELS} are taken. Shorten it.")

    @property
    def voxels(self) -> int:
        """Its length: steps from voxel to voxel, also diagonal ones."""
        return sum(max(abs(a - b) for a, b in zip(*ends, strict=True)) for ends in pairwise(self.vertices))

    def span(self, axis: int) -> range:
        """Return the slices that it passes along an axis of (i, j, k)."""
        indices = [vertex[axis] for vertex in self.vertices]
        return range(min(indices), max(indices) + 1)


@dataclass(frozen=True, slots=True)
class Box:
    """A box around the object, both corners included; flat (one slice) or 3D. Reversed corners are sorted."""

    low_ijk: IJK
    high_ijk: IJK

    def __post_init__(self) -> None:
        corners = np.array([_voxel(self.low_ijk, "Box corner"), _voxel(self.high_ijk, "Box corner")])
        if (corners[0] == corners[1]).all():
            raise PromptError(f"The box at {_text(corners[0])} is a single voxel. Draw a larger box, or use a point.")
        object.__setattr__(self, "low_ijk", tuple(corners.min(axis=0).tolist()))
        object.__setattr__(self, "high_ijk", tuple(corners.max(axis=0).tolist()))


@dataclass(frozen=True, slots=True, eq=False)
class MaskPrompt:
    """Painted slices of the object.

    Args:
        array: bool [k, j, i] on the volume's grid (other numbers: non-zero is object).
        slices: the slice numbers to use, counted along the slice axis; an empty one means that the object is
            not there. None takes every slice that is not empty.
        geometry: the mask's own grid, if it came from a file; it is compared with the volume's.
        after: how many of the object's points were given before it. Those of them that lie on its slices are painted
            over and count no more; elsewhere it changes what differs from the answer to them (`inference/progressive`).
    """

    array: np.ndarray
    slices: tuple[int, ...] | None = None
    geometry: Geometry | None = None
    after: int = 0

    def __post_init__(self) -> None:
        if np.ndim(self.array) != 3:
            raise PromptError(f"A mask of shape {np.shape(self.array)} is not a volume; give three axes [k, j, i].")
        array = np.asarray(self.array)
        usable = array.dtype == np.bool_ and not array.flags.writeable
        object.__setattr__(self, "array", array if usable else array != 0)
        if not (self.after and self.slices) and not self.array.any():  # what was clicked may be wiped out
            raise PromptError("The mask is empty. Paint the object on at least one slice, or mark the slice absent.")
        if self.slices is not None:
            object.__setattr__(self, "slices", tuple(sorted({_slice_number(n, "MaskPrompt") for n in self.slices})))


@dataclass(frozen=True, slots=True)
class Absent:
    """A slice that does not show the object, counted along the slice axis."""

    slice: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "slice", _slice_number(self.slice, "Absent"))


@dataclass(frozen=True, slots=True, eq=False)
class ObjectPrompts:
    """All prompts of one object.

    Raises:
        PromptError: no name, or nothing to start from (no positive point, line, box or mask).
    """

    name: str
    points: tuple[Point, ...] = ()
    boxes: tuple[Box, ...] = ()
    masks: tuple[MaskPrompt, ...] = ()
    absent: tuple[Absent, ...] = ()
    lines: tuple[Line, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise PromptError(f"An object is named {self.name!r}. Give it a name, such as 'spleen'.")
        for kind, members in _KINDS.items():
            object.__setattr__(self, kind, _tuple_of(getattr(self, kind), members, f"{kind} of '{self.name}'"))
        if not (self.boxes or self.masks or self.lines or any(point.positive for point in self.points)):
            given = f"only {len(self.points)} negative points" if self.points else "no point, line, box or mask"
            raise PromptError(
                f"'{self.name}' has {given}: nothing to start from. Click on the object, box it or "
                "paint it on one slice."
            )
        late = [mask.after for mask in self.masks if not 0 <= mask.after <= len(self.points)]
        if late:
            raise PromptError(
                f"A mask of '{self.name}' is said to come after {late[0]} points; there are {len(self.points)}. Give "
                "how many of them came before it."
            )
        breaks = [0, *sorted({mask.after for mask in self.masks}), len(self.points)]
        for start, stop in pairwise(breaks):  # what was clicked before a slice was painted may be said anew
            _refuse_contradiction(self.name, self.points[start:stop])

    def check(self, geometry: Geometry) -> None:
        """Raise PromptError where a prompt does not fit a volume of this (stored) grid."""
        for point in self.points:
            _check_inside(point.ijk, geometry, f"The point {_text(point.ijk)} of '{self.name}'")
        for vertex in (vertex for line in self.lines for vertex in line.vertices):
            _check_inside(vertex, geometry, f"The line's vertex {_text(vertex)} of '{self.name}'")
        for box in self.boxes:
            for corner in (box.low_ijk, box.high_ijk):
                _check_inside(corner, geometry, f"The box corner {_text(corner)} of '{self.name}'")
        for mask in self.masks:
            _check_grid(mask, geometry, self.name)


@dataclass(frozen=True, slots=True, eq=False)
class PromptSet:
    """The prompts of all objects of one request.

    Raises:
        PromptError: no object, or the same name twice.
    """

    objects: tuple[ObjectPrompts, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "objects", _tuple_of(self.objects, ObjectPrompts, "objects"))
        if not self.objects:
            raise PromptError("There is no prompt. Click on the object, box it or paint it on one slice.")
        for name, times in Counter(self.names).items():
            if times > 1:
                raise PromptError(f"The object '{name}' is given {times} times. Put all its prompts together.")

    @property
    def names(self) -> tuple[str, ...]:
        """The objects' names, in the order given."""
        return tuple(entry.name for entry in self.objects)

    def check(self, geometry: Geometry) -> None:
        """Raise PromptError where a prompt does not fit a volume of this (stored) grid."""
        for entry in self.objects:
            entry.check(geometry)


_KINDS = {"points": Point, "boxes": Box, "masks": MaskPrompt, "absent": Absent, "lines": Line}


def _voxel(value: Any, what: str) -> IJK:
    """Parse three whole numbers; 12.0 is whole, 12.5, NaN and text are not."""
    try:
        numbers = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise PromptError(f"{what} {value!r} is not three numbers. Give the voxel index i, j, k.") from error
    if numbers.shape != (3,):
        raise PromptError(f"{what} {value!r} is not three numbers. Give the voxel index i, j, k.")
    if not np.isfinite(numbers).all() or (numbers != np.floor(numbers)).any():
        raise PromptError(f"{what} {_text(numbers)} is not a voxel index. Give whole numbers i, j, k, counted from 0.")
    return tuple(int(number) for number in numbers)  # type: ignore[return-value]


def _slice_number(value: Any, what: str) -> int:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float | np.integer | np.floating)
        or value != value // 1
        or value < 0
    ):
        raise PromptError(f"{what} has the slice number {value!r}. Give a whole number, counted from 0.")
    return int(value)


def _tuple_of(values: Iterable[Any], members: type, what: str) -> tuple[Any, ...]:
    members_given = tuple(values)
    for value in members_given:
        if not isinstance(value, members):
            raise PromptError(f"{what} holds {value!r}; it may only hold {members.__name__} values.")
    return members_given


def _refuse_contradiction(name: str, points: tuple[Point, ...]) -> None:
    both = {point.ijk for point in points if point.positive} & {point.ijk for point in points if not point.positive}
    if both:
        raise PromptError(
            f"The voxel {_text(min(both))} of '{name}' is both a positive and a negative point. Remove one."
        )


def _check_inside(ijk: IJK, geometry: Geometry, what: str) -> None:
    if not geometry.contains(ijk):
        size = " x ".join(map(str, geometry.size_ijk))
        last = ", ".join(str(n - 1) for n in geometry.size_ijk)
        raise PromptError(f"{what} lies outside the volume of {size} voxels. Indices run from 0, 0, 0 to {last}.")


def _check_grid(mask: MaskPrompt, geometry: Geometry, name: str) -> None:
    nk, nj, ni = mask.array.shape
    own = mask.geometry or replace(geometry, size_ijk=(ni, nj, nk))
    differences = own.differences(geometry)
    if own.shape_kji != mask.array.shape:
        differences.append(f"array shape {mask.array.shape} against its own grid's {own.shape_kji} [k, j, i]")
    if differences:
        raise PromptError(
            f"The mask of '{name}' lies on another grid than the volume: {'; '.join(differences)}. "
            "Resample the mask onto the volume's grid."
        )


def _text(values: Iterable[float]) -> str:
    return "(" + ", ".join(f"{float(value):g}" for value in values) + ")"


POINT_FORM = "NAME=i,j,k"
LINE_FORM = "NAME=i,j,k:i,j,k[:...]"
BOX_FORM = "NAME=i0,j0,i1,j1,k"
MASK_FORM = "NAME=FILE"
ABSENT_FORM = "NAME=SLICE"

UNNAMED = "object"  # Name of the only object when none is given

Kind = TypeVar("Kind")
Named = Mapping[str, Iterable[Kind]] | Iterable[Kind]
"""Values by object name; without names they all belong to one object."""


def collect_prompts(
    *,
    points: Named[IJK] | None = None,
    negative: Named[IJK] | None = None,
    boxes: Named[tuple[IJK, IJK]] | None = None,
    masks: Named[np.ndarray | MaskPrompt] | None = None,
    absent: Named[int] | None = None,
    lines: Named[Iterable[IJK]] | None = None,
) -> PromptSet:
    """Gather prompts by object, in the order in which the names first appear.

    Raises:
        PromptError: there is nothing to start from, or a prompt is not what it should be.
    """
    found: dict[str, dict[str, list[Any]]] = {}

    def add(field: str, given: Named | None, make: Callable[[Any], Any]) -> None:
        by_name = given if isinstance(given, Mapping) else {} if given is None else {UNNAMED: given}
        for name, entries in by_name.items():
            found.setdefault(name, {}).setdefault(field, []).extend(map(make, entries))

    add("points", points, Point)
    add("points", negative, lambda ijk: Point(ijk, positive=False))
    add("boxes", boxes, lambda corners: Box(*corners))
    add("masks", masks, lambda mask: mask if isinstance(mask, MaskPrompt) else MaskPrompt(mask))
    add("absent", absent, Absent)
    add("lines", lines, lambda line: line if isinstance(line, Line) else Line(line))
    return PromptSet(
        tuple(ObjectPrompts(name, **{k: tuple(v) for k, v in kinds.items()}) for name, kinds in found.items())
    )


def parse_prompts(
    *,
    points: Iterable[str] = (),
    negatives: Iterable[str] = (),
    boxes: Iterable[str] = (),
    masks: Iterable[str] = (),
    absent: Iterable[str] = (),
    lines: Iterable[str] = (),
) -> PromptSet:
    """Read the prompts of a command line.

    A box has two corners (i0, j0) and (i1, j1) on stored slice k, or six numbers i0,j0,k0,i1,j1,k1 for a 3D box.

    Raises:
        PromptError: a text is malformed, or an object has nothing to start from.
        VolumeError: a mask's file cannot be read.
    """
    return collect_prompts(
        points=_by_name(_numbers(text, "--point", POINT_FORM, {3}) for text in points),
        negative=_by_name(_numbers(text, "--negative", POINT_FORM, {3}) for text in negatives),
        boxes=_by_name(_box(text) for text in boxes),
        masks=_by_name(_mask(text) for text in masks),
        absent=_by_name((name, n) for name, (n,) in (_numbers(t, "--absent", ABSENT_FORM, {1}) for t in absent)),
        lines=_by_name(_vertices(text) for text in lines),
    )


def _by_name(pairs: Iterable[tuple[str, Any]]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found


def _split(text: str, option: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name.strip() and equals and value.strip()):
        raise PromptError(f"{option} {text} is not of the form {form}.")
    return name.strip(), value.strip()


def _numbers(text: str, option: str, form: str, counts: set[int]) -> tuple[str, tuple[float, ...]]:
    name, value = _split(text, option, form)
    try:
        numbers = tuple(float(part) for part in value.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in counts:
        raise PromptError(f"{option} {text} is not of the form {form}; give voxel indices counted from 0.")
    return name, numbers


def _vertices(text: str) -> tuple[str, list[tuple[float, ...]]]:
    name, value = _split(text, "--line", LINE_FORM)
    return name, [_numbers(f"{name}={part}", "--line", LINE_FORM, {3})[1] for part in value.split(":")]


def _mask(text: str) -> tuple[str, MaskPrompt]:
    name, file = _split(text, "--mask", MASK_FORM)
    volume = read_volume(Path(file))
    return name, MaskPrompt(volume.array, geometry=volume.geometry)


def _box(text: str) -> tuple[str, tuple[tuple[float, ...], tuple[float, ...]]]:
    name, numbers = _numbers(text, "--box", BOX_FORM, {5, 6})
    if len(numbers) == 5:
        i0, j0, i1, j1, k = numbers
        numbers = (i0, j0, k, i1, j1, k)
    return name, (numbers[:3], numbers[3:])
