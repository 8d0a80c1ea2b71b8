"""The named structures of a mask: put together from several answers, counted, and compared with another mask's.

A structure that comes again replaces itself; a new one takes no voxel from the others. OHIF's panel shows answers by
the same rule, so that what is stored is what was seen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicecast.dicom.seg import label_names
from slicecast.errors import GeometryError
from slicecast.inference.results import objects_of, voxel_counts
from slicecast.labelling.store.labels import names_of
from slicecast.labelling.tasks.request import number_labels
from slicecast.volume import Reorientation, SliceAxis, SliceStack, Volume, canonicalise, read_volume
from slicecast.volume.grid import onto_grid
from slicecast.volume.metrics import NSD_TOLERANCE_MM, dice, surface


@dataclass(frozen=True, slots=True, eq=False)
class Structures:
    """A mask, uint8 [k, j, i], and the value of each structure by its name; each has voxels."""

    mask: Volume
    values: Mapping[str, int]

    @classmethod
    def read(cls, file: Path, record: Mapping[str, Any], labels: Sequence[str]) -> "Structures":
        """Read a mask's file; a value that neither its record nor `labels` name becomes, say, `label 7`.

        Raises:
            VolumeError: it cannot be read.
        """
        mask = read_volume(file)
        mask = mask.with_array(mask.array.astype(np.uint8, copy=False))
        present = np.flatnonzero(voxel_counts(mask.array, least=1)).tolist()
        info = [{"name": name, "idx": value} for name, value in names_of(record, present, labels).items()]
        named = label_names({"label_info": info}, np.array(present))
        return cls(mask, {name: value for name, value in named.items() if value in present})

    def plus(self, new: "Structures", labels: Sequence[str], *, only_slice: int | None = None) -> "Structures":
        """Put another answer of the same image on top; the grid is then that of the answer.

        Args:
            new: the answer.
            labels: names with a number of their own; the others are numbered after them.
            only_slice: the one slice k that the answer is about.

        Raises:
            GeometryError: they lie on different grids.
        """
        before = onto_grid(self.mask, new.mask.geometry).array
        values = number_labels([*self.values, *(name for name in new.values if name not in self.values)], labels)
        array = renumbered(before, {old: values[name] for name, old in self.values.items()})
        again, added = [values[name] for name in new.values], {n: values[name] for name, n in new.values.items()}
        for k in range(len(array)) if only_slice is None else (only_slice,):
            array[k][np.isin(array[k], again)] = 0
            if new.mask.array[k].any():
                np.copyto(array[k], renumbered(new.mask.array[k : k + 1], added)[0], where=array[k] == 0)
        counts = voxel_counts(array, least=1)
        return Structures(new.mask.with_array(array), {name: n for name, n in values.items() if counts[n]})

    def numbers_of(self, other: "Structures") -> dict[int, int]:
        """Return, by the values of another mask, the value here of the same name, else one that is not here."""
        free = (value for value in range(1, 256) if value not in self.values.values())
        return {value: self.values.get(name) or next(free) for name, value in other.values.items()}

    def without(self, name: str) -> "Structures":
        """Leave a structure out."""
        kept = {other: value for other, value in self.values.items() if other != name}
        return replace(
            self, mask=self.mask.with_array(renumbered(self.mask.array, {n: n for n in kept.values()})), values=kept
        )

    def label_info(self) -> list[dict[str, Any]]:
        """Return names and values as a label's record has them."""
        return [{"name": name, "idx": value} for name, value in self.values.items()]

    def objects(self) -> dict[str, dict[str, Any]]:
        """Return value, voxels and ml by name."""
        return objects_of(self.mask.array, self.values, self.mask.geometry)


def renumbered(array: NDArray[np.uint8], values: Mapping[int, int]) -> NDArray[np.uint8]:
    """Give each value its new number, the others 0; slice by slice, because numpy's index needs eight bytes a voxel."""
    table, result = np.zeros(256, np.uint8), np.zeros_like(array)
    table[list(values)] = list(values.values())
    for before, after in zip(array, result, strict=True):
        if before.any():
            after[...] = table[before]
    return result


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
