"""A few slices of a case with truth and result, small enough to keep for every case."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from slicecast.volume import choose_window, normalise
from slicecast_lab.evaluation.cases import LabelledCase

COLUMNS = 6
MARGIN = 0.35
"""Shown around truth and result, over the larger side of both."""


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
    """Slices of a case.

    Args:
        slices: from one end of truth and result to the other; the prompted slice is among them.
        aspect: height of a pixel over its width.
        y_up: y points up the body.
    """

    slices: tuple[SnapshotSlice, ...]
    aspect: float
    y_up: bool


def take_snapshot(case: LabelledCase, mask: NDArray[np.bool_], number: int) -> Snapshot:
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
