"""Evaluate a model on cases: play the annotator on each, score the answers, compare with baselines, keep slices."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from slicecast.errors import ConfigError, InputError
from slicecast.prompts import ObjectPrompts
from slicecast.volume import choose_window, normalise
from slicecast.volume.metrics import Surface, dice, surface
from slicecast_lab.evaluation.baselines import INTERPOLATIONS, run_baseline, run_interpolation
from slicecast_lab.evaluation.cases import CaseFiles, TruthCase, read_case
from slicecast_lab.evaluation.monailabel import MonaiLabelProcess, segment_case
from slicecast_lab.evaluation.prompts import (
    CLICKED_RULES,
    CORRECTION_RULES,
    Interaction,
    Segments,
    correct,
    paint_every,
    pick_slice,
    play,
)
from slicecast_lab.evaluation.provenance import peak_rss_mib
from slicecast_lab.evaluation.settings import Settings

COLUMNS = 6
MARGIN = 0.35  # Shown around truth and result, over the larger side of both


@dataclass(frozen=True, slots=True, eq=False)
class SnapshotSlice:
    """One slice: number as stored, greys uint8 (H, W), truth and result bool (H, W), and whether it was prompted."""

    slice: int
    grey: NDArray[np.uint8]
    truth: NDArray[np.bool_]
    result: NDArray[np.bool_]
    prompted: bool


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """Slices of a case."""

    slices: tuple[SnapshotSlice, ...]  # from one end of truth and result to the other; the prompted slice is among them
    aspect: float  # height of a pixel over its width
    y_up: bool  # y points up the body


def take_snapshot(case: TruthCase, mask: NDArray[np.bool_], number: int) -> Snapshot:
    """Cut the slices out; `number` is the prompted canonical slice."""
    scan, truth, result = (case.slices(array) for array in (case.volume.array, case.truth, mask))
    window = choose_window(case.volume)
    union = case.slices(case.truth | mask)
    shown = [n for n in range(union.count) if union.slice(n).any()]
    place = _around(np.any([union.slice(n) for n in shown], axis=0))
    slices = tuple(
        SnapshotSlice(
            case.stored_slice(n),
            (255 * normalise(scan.slice(n), window)[place]).astype(np.uint8),
            truth.slice(n)[place].copy(),
            result.slice(n)[place].copy(),
            n == number,
        )
        for n in _columns(shown, number)
    )
    width, height = case.axis.pixel_spacing_mm(case.turn.geometry)
    return Snapshot(slices, height / width, case.axis.in_plane[1] == 2)


def _columns(shown: list[int], number: int) -> list[int]:
    """Choose up to COLUMNS slices at equal distances; the nearest of them gives way to the prompted one."""
    chosen = sorted({shown[n] for n in np.linspace(0, len(shown) - 1, COLUMNS).round().astype(int).tolist()})
    nearest = min(range(len(chosen)), key=lambda n: abs(chosen[n] - number))
    chosen[nearest] = number
    return chosen


def _around(shown: NDArray[np.bool_]) -> tuple[slice, slice]:
    rows, columns = ndimage.find_objects(shown.view(np.uint8))[0]
    half = (0.5 + MARGIN) * max(rows.stop - rows.start, columns.stop - columns.start, 16)
    return tuple(  # type: ignore[return-value]
        slice(max(0, round((part.start + part.stop) / 2 - half)), round((part.start + part.stop) / 2 + half))
        for part in (rows, columns)
    )


logger = logging.getLogger(__name__)

MISTAKES = {
    "prompted": "the prompted slice itself",
    "missed": "object missed on other slices",
    "excess": "too much on the object's other slices",
    "beyond": "past the object's ends",
}
"""Kind of mistake -> words."""

Progress = Callable[[int, int, str], None]
"""Called with the cases done, their number, and the name of the one that begins."""


@dataclass(frozen=True, slots=True, eq=False)
class CaseResult:
    """How one case went; its final answer is the one after the last click, before corrections."""

    files: CaseFiles
    axis: str
    slice: int  # that was prompted, counted as stored along `axis`
    # over the volume, after each interaction; clicks that no error asked for repeat the last value
    dice: tuple[float, ...]
    clicks_used: int  # interactions that took place
    dice_elsewhere: float  # Dice of the final answer without the prompted slice
    surface: Surface  # distances of the final answer
    seconds: tuple[float, ...]  # of each interaction
    # Dice before and after each correction, by who chose the slice
    corrections: dict[str, tuple[float, ...]] = field(default_factory=dict)
    correction_seconds: tuple[float, ...] = ()  # of each such interaction
    # Dice with every so many slices painted, by that number: ``model`` and the interpolations
    painted: dict[int, dict[str, float]] = field(default_factory=dict)
    baselines: dict[str, float] = field(default_factory=dict)  # Dice by method
    mistakes: dict[str, float] = field(default_factory=dict)  # share of the final answer's wrong voxels, by kind
    snapshot: Snapshot | None = None

    @property
    def final_dice(self) -> float:
        """Dice of the final answer."""
        return self.dice[-1]


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """All cases of one evaluation."""

    settings: Settings
    results: tuple[CaseResult, ...]
    skipped: dict[str, str]  # why, by case
    peak_rss_mib: int  # most memory that the process has had


def evaluate(
    cases: Sequence[CaseFiles],
    service: Segments,
    settings: Settings,
    *,
    monailabel: MonaiLabelProcess | None = None,
    progress: Progress = lambda done, total, name: None,
) -> Evaluation:
    """Evaluate all cases; one that cannot be read or prompted is skipped and listed with the reason.

    Args:
        monailabel: for the baseline of that name.

    Raises:
        ConfigError: that baseline without its process.
        ResourceError: weights or device are missing.
    """
    if "monailabel" in settings.baselines and monailabel is None:
        raise ConfigError("The baseline monailabel needs its process. Pass monailabel=MonaiLabelProcess(...).")
    results, skipped = [], {}
    for done, files in enumerate(cases):
        progress(done, len(cases), files.id)
        try:
            results.append(evaluate_case(read_case(files), service, settings, monailabel=monailabel))
        except InputError as error:
            logger.warning("%s is skipped: %s", files.id, error)
            skipped[files.id] = str(error)
    progress(len(cases), len(cases), "")
    return Evaluation(settings, tuple(results), skipped, peak_rss_mib())


def evaluate_case(
    case: TruthCase, service: Segments, settings: Settings, *, monailabel: MonaiLabelProcess | None = None
) -> CaseResult:
    """Evaluate one case; raises PromptError if it cannot be prompted in the way asked for."""
    number = pick_slice(case, settings.slice)
    answers = play(case, service, settings, number)
    last = answers[-1]
    rules = CLICKED_RULES if settings.prompt == "clicks" else CORRECTION_RULES
    corrections = {who: correct(case, service, last, who, times=settings.corrections) for who in rules}
    wanted = settings.clicks if settings.prompt == "clicks" else 1
    return CaseResult(
        files=case.files,
        axis=case.axis.name.lower(),
        slice=case.stored_slice(number),
        dice=_prolonged([answer.dice for answer in answers], wanted),
        clicks_used=len(answers),
        dice_elsewhere=_dice_elsewhere(case, last.mask, number),
        surface=surface(last.mask, case.truth, spacing_kji=_spacing(case, settings)),
        seconds=tuple(answer.seconds for answer in answers),
        corrections=_by_choice(last, corrections, settings.corrections),
        correction_seconds=tuple(a.seconds for further in corrections.values() for a in further),
        painted={step: _painted(case, service, step) for step in settings.every},
        baselines=_baselines(case, settings, number, last.prompts, monailabel),
        mistakes=mistake_shares(case, last.mask, number),
        snapshot=take_snapshot(case, last.mask, number),
    )


def _painted(case: TruthCase, service: Segments, step: int) -> dict[str, float]:
    """Return the Dice of the model and of each interpolation with every `step`-th slice painted."""
    numbers, answer = paint_every(case, service, step)
    filled = {name: dice(run_interpolation(name, case, numbers), case.truth) for name in INTERPOLATIONS}
    return {"model": answer.dice, **filled}


def _baselines(
    case: TruthCase, settings: Settings, number: int, prompts: ObjectPrompts, monailabel: MonaiLabelProcess | None
) -> dict[str, float]:
    """Return the Dice of each baseline."""
    scores = {}
    for name in settings.baselines:
        if name == "monailabel" and monailabel is not None:
            mask = segment_case(monailabel, case, prompts).mask
        else:
            mask = run_baseline(name, case, number)
        scores[name] = dice(mask, case.truth)
    return {str(name): value for name, value in scores.items()}


def mistake_shares(case: TruthCase, mask: NDArray[np.bool_], number: int) -> dict[str, float]:
    """Return which share of the wrong voxels is of each kind; zeros where nothing is wrong.

    Args:
        mask: bool [k, j, i], as stored.
        number: the prompted canonical slice.
    """
    missed, excess = _by_slice(case, case.truth & ~mask), _by_slice(case, mask & ~case.truth)
    first, last = case.extent
    inside = np.zeros(len(missed), dtype=bool)
    inside[first : last + 1] = True
    elsewhere = inside & (np.arange(len(missed)) != number)
    counts = {
        "prompted": missed[number] + excess[number],
        "missed": missed[elsewhere].sum(),
        "excess": excess[elsewhere].sum(),
        "beyond": excess[~inside].sum(),
    }
    wrong = max(int(missed.sum() + excess.sum()), 1)
    return {kind: float(count) / wrong for kind, count in counts.items()}


def _by_slice(case: TruthCase, voxels: NDArray[np.bool_]) -> NDArray[np.int64]:
    stack = case.slices(voxels)
    return np.array([np.count_nonzero(stack.slice(n)) for n in range(stack.count)])


def _prolonged(values: Sequence[float], count: int) -> tuple[float, ...]:
    """Repeat the last value: who is content stops clicking."""
    return (*values, *[values[-1]] * (count - len(values)))


def _by_choice(start: Interaction, further: dict, times: int) -> dict[str, tuple[float, ...]]:
    if not times:
        return {}
    return {who: _prolonged([start.dice, *(a.dice for a in answers)], times + 1) for who, answers in further.items()}


def _spacing(case: TruthCase, settings: Settings) -> tuple[float, ...]:
    return (1.0, 1.0, 1.0) if settings.unit == "voxel" else case.volume.geometry.spacing_mm[::-1]


def _dice_elsewhere(case: TruthCase, mask: NDArray[np.bool_], number: int) -> float:
    elsewhere = np.ones(mask.shape, dtype=bool)
    case.slices(elsewhere).slice(number)[...] = False  # a view: it writes through to the stored array
    return dice(mask & elsewhere, case.truth & elsewhere)
