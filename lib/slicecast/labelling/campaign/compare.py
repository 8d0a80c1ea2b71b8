"""Comparison of two labels of one image: slice by slice and as a whole."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slicecast.errors import GeometryError
from slicecast.labelling.campaign.structures import renumbered
from slicecast.volume import Reorientation, SliceAxis, SliceStack, Volume, canonicalise, read_volume
from slicecast.volume.metrics import NSD_TOLERANCE_MM, dice, surface


def compare_labels(
    found: Path, truth: Path, *, tolerance_mm: float = NSD_TOLERANCE_MM, values: Mapping[int, int] | None = None
) -> dict[str, Any]:
    """Compare two label files of the same image; returns JSON values.

    Args:
        found: one.
        truth: the other.
        tolerance_mm: of the NSD.
        values: what a value of `truth` is in `found`; others are left out. None where both number alike.

    Keys: dice (mean over the values, of everything where the two name them differently), by_value, nsd and hd95_mm
    (of everything), tolerance_mm.

    Raises:
        GeometryError: they lie on different grids.
        VolumeError: a file cannot be read.
    """
    first, second, _ = _on_one_grid(found, truth, values)
    present = sorted(set(np.unique(first.array)) | set(np.unique(second.array)) - {0})
    by_value = {str(int(v)): round(dice(first.array == v, second.array == v), 4) for v in present if v}
    distances = surface(
        first.array > 0, second.array > 0, spacing_kji=first.geometry.spacing_mm[::-1], tolerance=tolerance_mm
    )
    whole = dice(first.array > 0, second.array > 0)
    return {
        "dice": round(float(np.mean(list(by_value.values()))) if by_value else whole, 4),
        "by_value": by_value,
        "nsd": round(distances.nsd, 4),
        "hd95_mm": None if distances.hd95 is None else round(distances.hd95, 3),
        "tolerance_mm": tolerance_mm,
    }


def slice_truths(
    found: Path,
    truth: Path,
    *,
    features: Mapping[str, Sequence[float]],
    axis: str,
    values: Mapping[int, int] | None = None,
) -> list[list[float]]:
    """Append to each slice's features the IoU that it turned out to have; 1 where both labels are empty.

    Args:
        features: a row (`active/calibration`) by slice number, counted as stored along the axis, as in JSON.
        axis: axial, coronal or sagittal.
        values: see `compare_labels`.

    Raises:
        GeometryError: the labels lie on different grids.
    """
    first, second, turn = _on_one_grid(found, truth, values)
    along = SliceAxis[axis.upper()]
    stacks = [SliceStack(part.array, along) for part in (first, second)]
    rows = []
    for number in range(stacks[0].count):
        row = features.get(str(turn.to_source_slice(along, number)))
        if row is not None:
            mine, other = (stack.slice(number) > 0 for stack in stacks)
            shared = dice(mine, other)
            rows.append([*row, round(shared / (2 - shared), 4)])
    return rows


def _on_one_grid(first: Path, second: Path, values: Mapping[int, int] | None) -> tuple[Volume, Volume, Reorientation]:
    """Read both in canonical orientation; return them with the reorientation of the first."""
    (one, turn), (other, _) = canonicalise(read_volume(first)), canonicalise(read_volume(second))
    different = one.geometry.differences(other.geometry)
    if different:
        why = "; ".join(different)
        raise GeometryError(f"{first.name} and {second.name} lie on different grids ({why}). Use the image's grid.")
    if values is not None:
        other = other.with_array(renumbered(other.array.astype(np.uint8), values))
    return one, other, turn
