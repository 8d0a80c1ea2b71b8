"""Reads prompts from the text of a command line: ``spleen=120,96,40``."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from slicecast.errors import PromptError
from slicecast.prompts.model import Absent, Box, MaskPrompt, ObjectPrompts, Point, PromptSet
from slicecast.volume import read_volume

POINT_FORM = "NAME=i,j,k"
BOX_FORM = "NAME=i0,j0,i1,j1,k"
MASK_FORM = "NAME=FILE"
ABSENT_FORM = "NAME=SLICE"


def parse_prompts(
    *,
    points: Iterable[str] = (),
    negatives: Iterable[str] = (),
    boxes: Iterable[str] = (),
    masks: Iterable[str] = (),
    absent: Iterable[str] = (),
) -> PromptSet:
    """Collect the prompts of all objects, in the order in which their names first appear.

    A box has two corners (i0, j0) and (i1, j1) on stored slice k, or six numbers i0,j0,k0,i1,j1,k1 for a 3D box.

    Raises:
        PromptError: a text is malformed, or an object has nothing to start from.
        VolumeError: a mask's file cannot be read.
    """
    found: dict[str, dict[str, list]] = {}

    def add(name: str, kind: str, value: object) -> None:
        found.setdefault(name, {}).setdefault(kind, []).append(value)

    for text in points:
        name, numbers = _numbers(text, "--point", POINT_FORM, {3})
        add(name, "points", Point(_triple(numbers)))
    for text in negatives:
        name, numbers = _numbers(text, "--negative", POINT_FORM, {3})
        add(name, "points", Point(_triple(numbers), positive=False))
    for text in boxes:
        name, numbers = _numbers(text, "--box", BOX_FORM, {5, 6})
        add(name, "boxes", _box(numbers))
    for text in masks:
        name, file = _split(text, "--mask", MASK_FORM)
        volume = read_volume(Path(file))
        add(name, "masks", MaskPrompt(volume.array, geometry=volume.geometry))
    for text in absent:
        name, numbers = _numbers(text, "--absent", ABSENT_FORM, {1})
        add(name, "absent", Absent(numbers[0]))  # type: ignore[arg-type]  # validated there: 3.0 is a slice
    return PromptSet(
        tuple(ObjectPrompts(name, **{k: tuple(v) for k, v in kinds.items()}) for name, kinds in found.items())
    )


def _split(text: str, option: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name.strip() and equals and value.strip()):
        raise PromptError(f"{option} {text} is not of the form {form}.")
    return name.strip(), value.strip()


def _numbers(text: str, option: str, form: str, counts: set[int]) -> tuple[str, list[float]]:
    name, value = _split(text, option, form)
    try:
        numbers = [float(part) for part in value.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in counts:
        raise PromptError(f"{option} {text} is not of the form {form}; give voxel indices counted from 0.")
    return name, numbers


def _triple(numbers: list[float]) -> tuple:
    return tuple(numbers)


def _box(numbers: list[float]) -> Box:
    if len(numbers) == 5:
        i0, j0, i1, j1, k = numbers
        return Box(_triple([i0, j0, k]), _triple([i1, j1, k]))
    corners = np.array(numbers).reshape(2, 3)
    return Box(tuple(corners[0].tolist()), tuple(corners[1].tolist()))
