"""Collects prompts by object: from Python values, or from the text of a command line (``spleen=120,96,40``)."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from slicecast.errors import PromptError
from slicecast.prompts.model import IJK, Absent, Box, MaskPrompt, ObjectPrompts, Point, PromptSet
from slicecast.volume import read_volume

POINT_FORM = "NAME=i,j,k"
BOX_FORM = "NAME=i0,j0,i1,j1,k"
MASK_FORM = "NAME=FILE"
ABSENT_FORM = "NAME=SLICE"

UNNAMED = "object"
"""Name of the only object when none is given."""

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
