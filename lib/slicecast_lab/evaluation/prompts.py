"""Play the annotator: every interaction is a full request to the service, its answer decides the next.

Clicks: the first lies deepest inside the object on its slice, each further one deepest inside the largest error of
the product's own answer on that slice. A pixel is clicked once only: where the model does not follow a click, the next
one goes to the deepest error beside it.

A line has vertices deepest inside the object on its first, middle and last slice, and one more wherever the straight
way between two of them leaves the object. `ends` are the same three vertices as clicks, the middle one first.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from slicecast.errors import ConfigError
from slicecast.inference.results import SegmentResult
from slicecast.inference.segment import SegmentRequest
from slicecast.prompts import Box, Line, MaskPrompt, ObjectPrompts, Point, PromptSet
from slicecast.prompts.mapping import slice_to_source_ijk, straight
from slicecast.prompts.simulate import deepest_point, next_click
from slicecast.volume.metrics import dice
from slicecast.volume.slices import box_of
from slicecast_lab.evaluation.cases import TruthCase
from slicecast_lab.evaluation.settings import Settings, SliceRule


def pick_slice(case: TruthCase, rule: SliceRule) -> int:
    """Return the canonical slice that is prompted: the object's largest, or the one at half or a quarter of its extent.

    Where the object has a gap there, the nearest slice that shows it.

    Raises:
        ConfigError: no such rule.
    """
    areas, (first, last) = case.areas, case.extent
    if rule == "largest":
        return int(areas.argmax())
    places = {"centre": 2, "quarter": 4}
    if rule not in places:
        raise ConfigError(f"There is no slice rule {rule!r}. Use one of {', '.join(get_args(SliceRule))}.")
    wanted = first + (last - first) // places[rule]
    shown = np.flatnonzero(areas)
    return int(shown[np.abs(shown - wanted).argmin()])


NAME = "object"

# Where corrections are made, and how: on the slice that the product suggests, on the one with the most wrong voxels, or
# there by painting it, or by a click, a painted slice and a click in turn
CorrectionRule = Literal["suggested", "worst", "painted", "mixed"]

CORRECTION_RULES: tuple[CorrectionRule, ...] = ("suggested", "worst")
CLICKED_RULES: tuple[CorrectionRule, ...] = (*CORRECTION_RULES, "painted", "mixed")  # What begins with clicks has more


class Segments(Protocol):
    """What is measured: something that answers requests as `SegmentService` does."""

    def segment(self, request: SegmentRequest) -> SegmentResult:
        """Carry out a request."""


@dataclass(frozen=True, slots=True, eq=False)
class Interaction:
    """One request and its answer."""

    prompts: ObjectPrompts  # all prompts so far
    mask: NDArray[np.bool_]  # bool [k, j, i], as stored
    dice: float  # over the volume
    seconds: float  # from the request to the mask
    next_slice: int | None  # the slice that the product suggests, as stored; or None


def play(case: TruthCase, service: Segments, settings: Settings, number: int) -> list[Interaction]:
    """Prompt canonical slice `number`; return one interaction, or one for each click.

    Fewer than asked for when no error is left on the slice.

    Raises:
        PromptError: the object cannot be prompted so, such as a box around a single voxel.
    """
    if settings.prompt == "clicks":
        return list(_clicks(case, service, settings.clicks, number))
    match settings.prompt:
        case "mask":
            given = _mask(case, [number])
        case "box":
            given = _box(case, number)
        case "line":
            given = ObjectPrompts(NAME, lines=(Line(tuple(_stored(case, _vertices(case)))),))
        case "ends":
            first, middle, last = _ends(case)
            given = ObjectPrompts(NAME, points=tuple(map(Point, _stored(case, [middle, first, last]))))
    return [_ask(case, service, given)]


def correct(
    case: TruthCase, service: Segments, start: Interaction, choice: CorrectionRule, *, times: int
) -> list[Interaction]:
    """Correct slices, chosen one after the other; fewer when there is nothing left to correct where one is sent.

    What began with clicks or a line is corrected by clicks, deepest in the largest error of the slice; a slice that is
    right is accepted, which counts as a step. All else is corrected by painting further slices with their true mask.

    Args:
        choice: one of CLICKED_RULES for what began with clicks, of CORRECTION_RULES for all else.
    """
    clicked = bool(start.prompts.points or start.prompts.lines)
    answers = [start]
    for turn in range(times):
        paints = not clicked or choice == "painted" or (choice == "mixed" and turn % 3 == 1)
        prompts = (_one_slice_more if paints else _one_click_more)(case, answers[-1], choice)
        if prompts is None:
            break
        answers.append(_ask(case, service, prompts))
    return answers[1:]


def paint_every(case: TruthCase, service: Segments, step: int) -> tuple[list[int], Interaction]:
    """Paint every `step`-th of the object's canonical slices, and the largest; return their numbers and the answer."""
    shown = np.flatnonzero(case.areas).tolist()
    numbers = sorted({pick_slice(case, "largest"), *shown[step // 2 :: step]})
    return numbers, _ask(case, service, _mask(case, numbers))


def _ask(case: TruthCase, service: Segments, prompts: ObjectPrompts) -> Interaction:
    result = service.segment(SegmentRequest(case.files.image, PromptSet((prompts,))))
    mask = result.mask == 1
    hint = None if result.next_slice is None else result.next_slice.slice
    return Interaction(prompts, mask, dice(mask, case.truth), result.seconds["total"], hint)


def _mask(case: TruthCase, numbers: Sequence[int]) -> ObjectPrompts:
    painted = MaskPrompt(case.truth, slices=tuple(case.stored_slice(n) for n in numbers))
    return ObjectPrompts(NAME, masks=(painted,))


def _box(case: TruthCase, number: int) -> ObjectPrompts:
    corners = box_of(case.slices(case.truth).slice(number)).reshape(2, 2).astype(int)
    low, high = slice_to_source_ijk(case.turn, case.axis, n=number, xy=corners).tolist()
    return ObjectPrompts(NAME, boxes=(Box(tuple(low), tuple(high)),))


Place = tuple[int, int, int]  # Canonical slice and pixel (x, y)


def _ends(case: TruthCase) -> list[Place]:
    shown = np.flatnonzero(case.areas)
    return [_deepest(case, int(n)) for n in shown[[0, (len(shown) - 1) // 2, -1]]]


def _deepest(case: TruthCase, number: int) -> Place:
    y, x = deepest_point(np.ascontiguousarray(case.slices(case.truth).slice(number)))[0]
    return number, x, y


def _vertices(case: TruthCase) -> list[Place]:
    """Return vertices between which the straight way stays inside the object wherever it is seen."""
    truth = case.slices(case.truth)
    waiting, done = _ends(case)[::-1], list[Place]()
    while waiting:
        outside = (
            []
            if not done
            else [n for n, x, y in straight(done[-1], waiting[-1]) if case.areas[n] and not truth.slice(n)[y, x]]
        )
        if outside:
            waiting.append(_deepest(case, outside[len(outside) // 2]))
        else:
            done.append(waiting.pop())
    return done


def _stored(case: TruthCase, places: Sequence[Place]) -> list[tuple[int, int, int]]:
    rows = [slice_to_source_ijk(case.turn, case.axis, n=n, xy=np.array([x, y])).tolist() for n, x, y in places]
    return [(i, j, k) for i, j, k in rows]


def _clicks(case: TruthCase, service: Segments, times: int, number: int) -> Iterator[Interaction]:
    found, points = np.zeros_like(case.truth), tuple[Point, ...]()
    for _ in range(times):
        click = _next_point(case, found, number, points)
        if click is None:
            return
        points = (*points, click)
        answer = _ask(case, service, ObjectPrompts(NAME, points=points))
        found = answer.mask
        yield answer


def _next_point(case: TruthCase, mask: NDArray[np.bool_], number: int, points: Sequence[Point]) -> Point | None:
    """Return the click deepest in a canonical slice's largest error, never twice on one voxel; None without error."""
    settled = mask.copy()
    for point in points:
        settled[point.ijk[::-1]] = case.truth[point.ijk[::-1]]
    truth, found = (case.slices(array).slice(number) for array in (case.truth, settled))
    click = next_click(truth, found, spacing=case.axis.pixel_spacing_mm(case.turn.geometry))
    if click is None:
        return None
    ijk = slice_to_source_ijk(case.turn, case.axis, n=number, xy=np.array([click.index]))[0].tolist()
    return Point(tuple(ijk), click.positive)


def _one_click_more(case: TruthCase, answer: Interaction, choice: CorrectionRule) -> ObjectPrompts | None:
    number, points = _choose(case, choice, answer, annotated=()), answer.prompts.points
    if number is None:
        return None
    click = _next_point(case, answer.mask, number, points)
    return _accepted(case, answer, number) if click is None else replace(answer.prompts, points=(*points, click))


def _accepted(case: TruthCase, answer: Interaction, number: int) -> ObjectPrompts | None:
    """Return the prompts with a slice settled that is right; None if it is not."""
    given, truth = answer.prompts, case.slices(case.truth).slice(number)
    if not np.array_equal(case.slices(answer.mask).slice(number), truth):
        return None
    return _with_slice(case, given, number)


def _one_slice_more(case: TruthCase, answer: Interaction, choice: CorrectionRule) -> ObjectPrompts | None:
    given = answer.prompts
    boxed = [_slice_of(case, box.low_ijk) for box in given.boxes]
    number = _choose(case, choice, answer, annotated=[*_painted(case, given), *boxed])
    return None if number is None else _with_slice(case, given, number)


def _with_slice(case: TruthCase, given: ObjectPrompts, number: int) -> ObjectPrompts:
    """Paint a slice right, after all clicks so far; where the object is absent, the empty slice says so."""
    mask = MaskPrompt(case.truth, slices=(case.stored_slice(number),), after=len(given.points))
    return replace(given, masks=(*given.masks, mask))


def _painted(case: TruthCase, prompts: ObjectPrompts) -> list[int]:
    """Return the canonical slices that are painted."""
    return [case.stored_slice(n) for mask in prompts.masks for n in mask.slices or ()]


def _slice_of(case: TruthCase, ijk: tuple[int, int, int]) -> int:
    """Return the canonical slice of a stored voxel."""
    return int(case.axis.to_slice(case.turn.to_canonical_ijk(ijk))[0])


def _choose(case: TruthCase, choice: CorrectionRule, answer: Interaction, *, annotated: Sequence[int]) -> int | None:
    if choice == "suggested":
        wanted = None if answer.next_slice is None else case.stored_slice(answer.next_slice)
        return None if wanted in annotated else wanted
    return _worst(case, answer.mask, annotated)


def _worst(case: TruthCase, mask: NDArray[np.bool_], annotated: Sequence[int]) -> int | None:
    """Return the slice with the most wrong voxels that is not yet annotated."""
    errors = case.slices(mask != case.truth)
    wrong = np.array([np.count_nonzero(errors.slice(n)) for n in range(errors.count)])
    wrong[list(annotated)] = 0
    return int(wrong.argmax()) if wrong.any() else None
