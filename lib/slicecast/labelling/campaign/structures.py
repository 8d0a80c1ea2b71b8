"""The named structures of a mask: put together from several answers, and counted.

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
from slicecast.inference.results import voxel_counts
from slicecast.labelling.store.labels import names_of
from slicecast.labelling.tasks.request import number_labels
from slicecast.volume import Volume, read_volume
from slicecast.volume.grid import onto_grid


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
        voxels, ml = voxel_counts(self.mask.array, least=1), self.mask.geometry.voxel_volume_ml
        return {
            name: {"value": value, "voxels": int(voxels[value]), "ml": round(float(voxels[value] * ml), 3)}
            for name, value in self.values.items()
        }


def renumbered(array: NDArray[np.uint8], values: Mapping[int, int]) -> NDArray[np.uint8]:
    """Give each value its new number, the others 0; slice by slice, because numpy's index needs eight bytes a voxel."""
    table, result = np.zeros(256, np.uint8), np.zeros_like(array)
    table[list(values)] = list(values.values())
    for before, after in zip(array, result, strict=True):
        if before.any():
            after[...] = table[before]
    return result
