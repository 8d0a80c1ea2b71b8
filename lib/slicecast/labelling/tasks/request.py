"""Parsing of infer requests: what OHIF, 3D Slicer and MONAI Label's client put into `params`, as typed values.

Voxel indices are (i, j, k) of the stored volume, as every client sends them. Unknown keys are ignored, because OHIF
keeps one `params` object per model and leaves keys of earlier requests in it.
"""

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

from slicecast.errors import ConfigError, PromptError
from slicecast.inference.settings import require_few_points
from slicecast.prompts import Absent, Box, Line, MaskPrompt, ObjectPrompts, Point, PromptSet
from slicecast.prompts.mapping import straight
from slicecast.prompts.model import IJK

Style = Literal["several", "single"]
"""several: one list of points per label (deepedit); single: foreground and background (deepgrow)."""

DEFAULT_NAME = "object"  # Name of the object when the client does not say one (OHIF never does for a deepgrow model)
BACKGROUND = "background"  # Key of negative points; in OHIF a pseudo-label shared by all labels
MAX_LABELS = 254  # The answer is uint8, because OHIF reads nothing else, and 255 is BACKGROUND_VALUE
BACKGROUND_VALUE = 255
"""The number declared for the background; no mask contains it. Without one OHIF would number the background by its
place among the labels, and show another label's voxels as background."""

EXTENSIONS = (".nii.gz", ".nrrd", ".nii", ".mha")  # Formats in which a mask can be sent back

PROMPT_KEYS = ("foreground", "background", "lines", "roi", "slice", "axis", "range", "window")
"""Keys of a request that are kept in the event log, besides lists of points under a label's name."""
MAX_NUMBERS = 1200  # Numbers kept in an event, three a point; of more prompts, only how many they are

_PROMPT_KEYS = "foreground background points point_labels roi bbox slice label labels label_prompt absent lines"
_OPTION_KEYS = "axis range window device model logging reset_state description strategy slice_strategy multi_axis"
_ANSWER_KEYS = (
    "output result_extension result_dtype result_compress result_write_to_file restore_label_idx "
    "save_label label_tag label_names label_info"
)
_SENDER_KEYS = "image image_id client_id user session session_id label_file"
RESERVED = frozenset(" ".join((_PROMPT_KEYS, _OPTION_KEYS, _ANSWER_KEYS, _SENDER_KEYS)).split())
"""Keys that mean something else and are therefore never the name of a label."""


@dataclass(frozen=True, slots=True)
class Clicks:
    """The points of one object, each an (i, j, k)."""

    name: str
    foreground: tuple[IJK, ...]
    background: tuple[IJK, ...] = ()


@dataclass(frozen=True, slots=True)
class InferRequest:
    """One infer request, not yet checked against the volume."""

    objects: tuple[Clicks, ...]  # those with something to start from
    values: Mapping[str, int]  # the number of each object in the answer's mask; may skip numbers (see `number_labels`)
    roi: tuple[int, ...] | None = None  # the numbers as sent; see `roi_box` for their order
    slice: int | None = None  # k of the slice that a 2D client shows
    axis: str = "auto"
    range: tuple[int, int] | None = None
    window: str = "auto"
    extension: str | None = None
    compress: bool = False
    masks: Mapping[str, MaskPrompt] = field(default_factory=dict)  # painted slices by object
    # slices that do not show an object, by its name
    absent: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    lines: Mapping[str, tuple[Line, ...]] = field(default_factory=dict)  # by object
    slice_strategy: str = ""  # which slice is suggested next; empty for the server's own
    multi_axis: bool | None = None  # whether all slice axes are heard; None for the server's own

    def with_masks(self, masks: Mapping[str, MaskPrompt], *, labels: Sequence[str] = ()) -> "InferRequest":
        """Add painted objects, numbered as `number_labels` does."""
        clicked = tuple(c for c in self.objects if c.foreground or c.name in {*masks, *self.lines} or not masks)
        background = self.objects[0].background
        names = {c.name for c in clicked}
        added = tuple(Clicks(name, (), background) for name in masks if name not in names)
        objects = (*clicked, *added)
        return replace(self, objects=objects, values=number_labels([c.name for c in objects], labels), masks=masks)

    def prompts(self, size_ijk: IJK) -> PromptSet:
        """Return the prompts for a volume of `size_ijk` voxels; a ROI becomes every object's box.

        Raises:
            PromptError: nothing to start from, or not on this volume.
        """
        if self.roi and len(self.objects) > 1:
            raise PromptError(f"A region of interest is one object's, but {len(self.objects)} were clicked. Remove it.")
        if self.slice is not None and self.slice >= size_ijk[2]:
            raise PromptError(f"There is no slice {self.slice}; k runs from 0 to {size_ijk[2] - 1} in this volume.")
        points = [ijk for clicks in self.objects for ijk in clicks.foreground]
        box = roi_box(self.roi, size_ijk, points=points, slice=self.slice) if self.roi else None
        return PromptSet(tuple(self._object(clicks, box) for clicks in self.objects))

    def _object(self, clicks: Clicks, box: Box | None) -> ObjectPrompts:
        points = [Point(ijk) for ijk in clicks.foreground] + [Point(ijk, positive=False) for ijk in clicks.background]
        mask = self.masks.get(clicks.name)
        return ObjectPrompts(
            clicks.name,
            points=tuple(points),
            boxes=(box,) if box else (),
            masks=(mask,) if mask else (),
            absent=tuple(Absent(number) for number in self.absent.get(clicks.name, ())),
            lines=self.lines.get(clicks.name, ()),
        )

    def on_slice(self) -> "InferRequest":
        """Keep only what lies on the slice in question, as a 2D client means it (Slicer at slice 0 sends all).

        A line is a click where it passes that slice.

        Raises:
            PromptError: all clicks and lines on the object lie on other slices.
        """
        clicked = {c.name: (*c.foreground, *_crossings(self.lines.get(c.name, ()), c.background)) for c in self.objects}
        positive = [ijk for points in clicked.values() for ijk in points]
        negative = [ijk for clicks in self.objects for ijk in clicks.background]
        k = self.slice if self.slice is not None else _last_k(positive or negative, self.roi)
        if positive and k not in {ijk[2] for ijk in positive}:
            others = ", ".join(map(str, sorted({ijk[2] for ijk in positive})[:5]))
            raise PromptError(f"No click lies on slice {k}, but on {others}. Click on the slice that is shown.")
        objects = tuple(Clicks(c.name, _with_k(clicked[c.name], k), _with_k(c.background, k)) for c in self.objects)
        return replace(self, objects=objects, slice=k, axis="auto", range=None, absent={}, lines={})


def parse_request(wire: Mapping[str, Any], *, style: Style, labels: Sequence[str] = ()) -> InferRequest:
    """Read a request of either client.

    In the style "several" every list of points is an object named by its key, and numbered as the model declares.
    A client that knows one object only sends foreground and background there too. In the style "single" the one
    object is 1.

    Raises:
        PromptError: a list of points is malformed, there are too many labels, or the object is called background.
        ConfigError: another key has an impossible value.
    """
    named = _clicked(wire, style=style, labels=labels)
    background = read_points(wire.get(BACKGROUND), BACKGROUND)
    lines = read_lines(wire.get("lines"), list(named)[-1])
    named = {**dict.fromkeys(lines, ()), **named}
    chosen = [label for label, points in named.items() if points or label in lines] or list(named)[-1:]
    return InferRequest(
        objects=tuple(Clicks(label, named[label], background) for label in chosen),
        values=number_labels(chosen, labels if style == "several" else ()),
        roi=read_roi(wire.get("roi")),
        slice=read_slice(wire.get("slice")),
        axis=read_word(wire.get("axis"), "axis", default="auto"),
        range=read_range(wire.get("range")),
        window=read_word(wire.get("window"), "window", default="auto"),
        absent=read_absent(wire.get("absent"), chosen),
        lines=lines,
        slice_strategy=read_word(wire.get("slice_strategy"), "slice_strategy", default=""),
        multi_axis=read_switch(wire.get("multi_axis"), "multi_axis"),
        extension=read_extension(wire.get("result_extension")),
        compress=read_flag(wire.get("result_compress")),
    )


def number_labels(names: Iterable[str], labels: Sequence[str]) -> dict[str, int]:
    """Give each name its number in a mask: its place among the app's labels, or the next one after them.

    Raises:
        PromptError: the numbers do not suffice.
    """
    declared = {label: place for place, label in enumerate(labels, start=1)}
    following = itertools.count(len(labels) + 1)
    values = {name: declared.get(name) or next(following) for name in names}
    if max(values.values(), default=0) > MAX_LABELS:
        raise PromptError(
            f"One answer numbers at most {MAX_LABELS} labels, those of the server included. Ask for fewer."
        )
    return values


def _clicked(wire: Mapping[str, Any], *, style: Style, labels: Sequence[str]) -> dict[str, tuple[IJK, ...]]:
    """Collect the positive points by label, in the order sent; at least one label, maybe without points."""
    single = read_points(wire.get("foreground"), "foreground")
    named = _named_points(wire, labels) if style == "several" else {}
    if single or not any(named.values()):
        name = _object_name(wire.get("label"))
        named[name] = tuple(dict.fromkeys((*single, *named.pop(name, ()))))
    return named


def _object_name(label: Any) -> str:
    name = read_name(label, default=DEFAULT_NAME)
    if name == BACKGROUND:
        raise PromptError("'background' is where a structure is not. Choose the structure, then click where it is not.")
    return name


def _named_points(wire: Mapping[str, Any], labels: Sequence[str]) -> dict[str, tuple[IJK, ...]]:
    """Read the lists of points by label: labels of the app, and any other key that holds points."""
    return {
        key: read_points(value, key)
        for key, value in wire.items()
        if key not in RESERVED and (key in labels or looks_like_points(value))
    }


def _last_k(points: Sequence[IJK], roi: Sequence[int] | None) -> int | None:
    """Return the slice of a 2D request that does not name one: that of the last click, as in OHIF."""
    if points:
        return points[-1][2]
    return (roi[4] + roi[5]) // 2 if roi and len(roi) == 6 else None


def _crossings(lines: Iterable[Line], denied: Collection[IJK]) -> list[IJK]:
    """Return where lines pass the slices of k, from end to end; a click off the object counts before a line."""
    ways = [straight((a[2], *a[:2]), (b[2], *b[:2])) for line in lines for a, b in pairwise(line.vertices)]
    return [ijk for way in ways for k, i, j in way if (ijk := (i, j, k)) not in denied]


def _with_k(points: Iterable[IJK], k: int | None) -> tuple[IJK, ...]:
    return tuple(ijk for ijk in points if ijk[2] == k)


def read_points(value: Any, key: str) -> tuple[IJK, ...]:
    """Read a list of voxel indices; absent and null are empty, and a repeated click counts once.

    Raises:
        PromptError: it is no list of [i, j, k].
    """
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise PromptError(f"'{key}' is {short(value)}; send a list of voxel indices such as [[120, 88, 41]].")
    return tuple(dict.fromkeys(Point(_triple(entry, key)).ijk for entry in value))


def looks_like_points(value: Any) -> bool:
    """Tell whether a value is a list of points, and not some option."""
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(entry, list) and len(entry) == 3 for entry in value)


def read_roi(value: Any) -> tuple[int, ...] | None:
    """Read the four or six whole numbers of a region of interest; raises PromptError if it is something else."""
    if value is None or value in ([], ""):
        return None
    if not isinstance(value, list | tuple) or len(value) not in (4, 6) or not all(_is_number(n) for n in value):
        raise PromptError(f"'roi' is {short(value)}; send six numbers, i0, i1, j0, j1, k0, k1 (or four on one slice).")
    if any(n != n // 1 for n in value):
        raise PromptError(f"'roi' is {short(value)}; its numbers must be whole voxel indices.")
    return tuple(int(n) for n in value)


def read_slice(value: Any) -> int | None:
    """Read the slice of a 2D client; raises PromptError if it is no whole number from 0."""
    if value is None or value == "":
        return None
    if not _is_number(value) or value != value // 1 or value < 0:
        raise PromptError(f"'slice' is {short(value)}; send the slice's k, a whole number counted from 0.")
    return int(value)


def read_absent(value: Any, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Read which slices do not show an object: a list for all of `names`, or lists by name.

    Raises:
        PromptError: it is something else.
    """
    lists = value if isinstance(value, Mapping) else dict.fromkeys(names, value or [])
    found = {}
    for name, numbers in lists.items():
        if not isinstance(numbers, list | tuple):
            raise PromptError(
                f"'absent' is {short(value)}; send slice numbers, such as [3, 40] or {{\"spleen\": [3]}}."
            )
        found[str(name)] = tuple(dict.fromkeys(Absent(number).slice for number in numbers))
    return found


def read_lines(value: Any, name: str) -> dict[str, tuple[Line, ...]]:
    """Read lines of at least two voxels each: a list of them for the object `name`, or lists by name.

    Raises:
        PromptError: it is something else.
        TooLarge: they are too long.
    """
    lists = value if isinstance(value, Mapping) else {name: value} if value else {}
    found = {_object_name(key): tuple(_line(line) for line in _listed(lines)) for key, lines in lists.items()}
    require_few_points(sum(line.voxels for lines in found.values() for line in lines))
    return {key: lines for key, lines in found.items() if lines}


def _line(value: Any) -> Line:
    return Line(tuple(_triple(vertex, "lines") for vertex in _listed(value)))


def _listed(value: Any) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise PromptError(
            f"'lines' holds {short(value)}; send lists of vertices, such as [[[9, 8, 1], [9, 9, 7]]] or by name."
        )
    return value


def read_range(value: Any) -> tuple[int, int] | None:
    """Read "first:end" or [first, end], half-open; raises ConfigError if it is something else, or empty."""
    if value is None or value in ([], ""):
        return None
    hint = "write first:end, such as 20:60 for slices 20 to 59."
    try:
        first, end = (int(part) for part in (value.split(":") if isinstance(value, str) else value))
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"'range' is {short(value)}; {hint}") from error
    if not 0 <= first < end:
        raise ConfigError(f"'range' {first}:{end} holds no slice; {hint}")
    return first, end


def read_word(value: Any, key: str, *, default: str) -> str:
    """Read a choice; some clients send the whole list of choices, whose first is meant.

    Raises:
        ConfigError: it is no word.
    """
    word = value[0] if isinstance(value, list) and value else value
    if word is None or word in ([], ""):
        return default
    if not isinstance(word, str):
        raise ConfigError(f"'{key}' is {short(word)}; send a word, such as '{default}'.")
    return word


def read_extension(value: Any) -> str | None:
    """Read the format of the answer; raises ConfigError if masks are not written in it."""
    if value is None or value == "":
        return None
    if value not in EXTENSIONS:
        raise ConfigError(f"'result_extension' is {short(value)}; choose {', '.join(EXTENSIONS)}.")
    return str(value)


def read_flag(value: Any) -> bool:
    """Read a switch, sent as a boolean, a number or a word."""
    return value.strip().lower() in ("true", "1", "yes", "on") if isinstance(value, str) else bool(value)


def read_switch(value: Any, key: str) -> bool | None:
    """Read a switch that may be left to the server, which is None; raises ConfigError where it says neither."""
    words = {"true": True, "1": True, "false": False, "0": False, "": None, "none": None}
    if str(value).strip().lower() not in words:
        raise ConfigError(f"'{key}' is {short(value)}; send true or false.")
    return words[str(value).strip().lower()]


def read_name(value: Any, *, default: str) -> str:
    """Read a label's name."""
    return value.strip() if isinstance(value, str) and value.strip() else default


def short(value: Any) -> str:
    """Show a value in a message, but never a page of it."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _triple(entry: Any, key: str) -> Any:
    if not isinstance(entry, list | tuple) or len(entry) != 3 or not all(_is_number(n) for n in entry):
        raise PromptError(f"'{key}' holds {short(entry)}; a point is three numbers, the voxel index [i, j, k].")
    return entry


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def roi_box(roi: Sequence[int], size_ijk: IJK, *, points: Iterable[IJK] = (), slice: int | None = None) -> Box:
    """Turn a ROI into a box clipped to the volume; on `slice`, a flat one.

    Slicer sends i0, i1, j0, j1, k0, k1 with pairs in either order; MONAI Label's own task reads two corners,
    i0, j0, i1, j1, k0, k1. Of the two readings the one that holds more of the points is meant, then the one that
    lies inside the volume, then Slicer's.

    Raises:
        PromptError: the box lies outside the volume, or four numbers came without a slice.
    """
    if len(roi) == 4 and slice is None:
        raise PromptError(f"'roi' is {list(roi)}; a volume needs six numbers, i0, i1, j0, j1, k0, k1.")
    a, b, c, d, k0, k1 = roi if slice is None else (*roi[:4], slice, slice)
    clicks = list(points)
    readings = [_sorted((a, c, k0), (b, d, k1)), _sorted((a, b, k0), (c, d, k1))]
    low, high = max(readings, key=lambda corners: _fit(corners[0], corners[1], clicks, size_ijk))
    if any(first >= size or last < 0 for first, last, size in zip(low, high, size_ijk, strict=True)):
        size = " x ".join(map(str, size_ijk))
        raise PromptError(f"The region of interest {list(roi)} lies outside the volume of {size} voxels. Move it.")
    return Box(_clipped(low, size_ijk), _clipped(high, size_ijk))


def _sorted(first: IJK, second: IJK) -> tuple[IJK, IJK]:
    pairs = list(zip(first, second, strict=True))
    return tuple(map(min, pairs)), tuple(map(max, pairs))  # type: ignore[return-value]


def _fit(low: IJK, high: IJK, points: Iterable[IJK], size_ijk: IJK) -> tuple[int, bool]:
    held = sum(low[0] <= i <= high[0] and low[1] <= j <= high[1] for i, j, _ in points)
    return held, min(low) >= 0 and all(last < size for last, size in zip(high, size_ijk, strict=True))


def _clipped(ijk: IJK, size_ijk: IJK) -> IJK:
    return tuple(min(max(n, 0), size - 1) for n, size in zip(ijk, size_ijk, strict=True))  # type: ignore[return-value]


def prompts_of(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the prompts of an infer request for the event log: points by key, other prompts as they are."""
    found = {key: value for key, value in request.items() if key in PROMPT_KEYS or looks_like_points(value)}
    kept = {key: value for key, value in found.items() if value not in (None, [], "")}
    if _size(kept) <= MAX_NUMBERS:
        return kept
    return {key: len(value) if isinstance(value, list | dict) else value for key, value in kept.items()}


def bounded(prompts: Mapping[str, Mapping[str, list[Any]]]) -> dict[str, dict[str, Any]]:
    """Return a session's prompts by kind and object for the event log; of too many, only their numbers."""
    few = _size(prompts) <= MAX_NUMBERS
    return {
        kind: {name: entries if few else len(entries) for name, entries in by_object.items()}
        for kind, by_object in prompts.items()
    }


def _size(value: Any) -> int:
    """Count what lists and objects hold in the end."""
    if isinstance(value, Mapping | list):
        return sum(map(_size, value.values() if isinstance(value, Mapping) else value))
    return 1
