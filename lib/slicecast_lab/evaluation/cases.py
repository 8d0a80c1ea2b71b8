"""Cases of known truth: folders of scans and their labels in several layouts, read one case at a time."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slicecast.errors import ConfigError, GeometryError
from slicecast.volume import (
    Reorientation,
    SliceAxis,
    SliceStack,
    Volume,
    choose_axis,
    read_volume,
)
from slicecast.volume.reading import READ_ENDINGS

FOLDERS = (("images", "labels"), ("imagesTr", "labelsTr"))
"""Ours; the Decathlon's, whose test scans come without labels."""

BRATS_IMAGE = "_flair"  # Of the four contrasts the one that shows the whole tumour best
BRATS_LABELS = ("_seg", "_segm")  # The second is how one case of BraTS 2020 is misnamed
TEST_SHARE = 4  # Without a split of its own, about one case in so many of a set is for testing, chosen by its name

POOL, TEST = "pool", "test"


@dataclass(frozen=True, slots=True)
class CaseFiles:
    """Where a case is."""

    id: str  # name in reports
    image: Path  # file of the scan
    label: Path  # file of the truth, on the same grid
    values: tuple[int, ...]  # label values that together are the object; none for every value other than 0
    group: str  # cases of one group (one patient) are drawn together by the bootstrap


@dataclass(frozen=True, slots=True, eq=False)
class TruthCase:
    """A case, read."""

    files: CaseFiles  # where it came from
    volume: Volume  # the scan as stored
    truth: NDArray[np.bool_]  # bool [k, j, i], as stored
    turn: Reorientation  # between stored and canonical grid
    axis: SliceAxis  # along which the product slices it

    def slices(self, stored: NDArray) -> SliceStack:
        """See a stored array [k, j, i] as canonical slices."""
        return SliceStack(self.turn.to_canonical_array(stored), self.axis)

    def stored_slice(self, number: int) -> int:
        """Return the stored number of a canonical slice, or the other way round."""
        return self.turn.to_source_slice(self.axis, number)

    @property
    def areas(self) -> NDArray[np.int64]:
        """The object's voxels on each canonical slice."""
        stack = self.slices(self.truth)
        return np.array([np.count_nonzero(stack.slice(n)) for n in range(stack.count)])

    @property
    def extent(self) -> tuple[int, int]:
        """First and last canonical slice that show the object."""
        shown = np.flatnonzero(self.areas)
        return int(shown[0]), int(shown[-1])


def find_cases(folder: Path, values: Sequence[int], *, split: str = "", limit: int = 0) -> list[CaseFiles]:
    """List the cases of a folder by name.

    Args:
        values: label values that together are the object; none for every value other than 0.
        split: a list of `split.json`; empty for all.
        limit: at most so many; 0 for all.

    Raises:
        ConfigError: the folder has not the expected layout, no such split, or no case.
    """
    images, labels = scans_and_labels(folder)
    names = _split(folder, split) if split else sorted(images)
    missing = [name for name in names if name not in images or name not in labels]
    if missing:
        raise ConfigError(
            f"{len(missing)} cases of {folder} have no image or no label of that name, the first is {missing[0]!r}. "
            "Give files in images/ and labels/ the same names."
        )
    if not names:
        raise ConfigError(f"{folder} holds no case. Put scans in images/ and their masks in labels/.")
    chosen = names[: limit or None]
    return [CaseFiles(name, images[name], labels[name], tuple(values), name) for name in chosen]


def read_case(files: CaseFiles) -> TruthCase:
    """Read a case.

    Raises:
        VolumeError: a file cannot be used.
        GeometryError: image and label lie on different grids.
        ConfigError: the label does not show the object.
    """
    volume, label = read_volume(files.image), read_volume(files.label)
    differences = volume.geometry.differences(label.geometry)
    if differences:
        raise GeometryError(f"Image and label of {files.id} lie on different grids: {'; '.join(differences)}.")
    truth = np.isin(label.array, files.values) if files.values else label.array != 0
    if not truth.any():
        wanted = f"label {', '.join(map(str, files.values))}" if files.values else "any label"
        raise ConfigError(f"{files.id} does not show {wanted}.")
    turn = Reorientation.of(volume.geometry)
    return TruthCase(files, volume, truth, turn, choose_axis(turn.geometry))


@dataclass(frozen=True, slots=True)
class Split:
    """The cases to choose among, and those to measure on; they share no group."""

    pool: Sequence[CaseFiles]
    test: Sequence[CaseFiles]


def has_split(folder: Path) -> bool:
    """Tell whether a set says itself which cases are for testing."""
    return (folder / "split.json").is_file()


def find_split(folder: Path, values: Sequence[int], *, pool: int = 0, test: int = 0) -> Split:
    """Return the first cases of `split.json`'s pool and test; without that file, cases are divided by their names.

    Args:
        pool, test: at most so many; 0 for all.

    Raises:
        ConfigError: the folder has not the expected layout, or one part is empty.
    """
    if has_split(folder):
        return Split(
            find_cases(folder, values, split=POOL, limit=pool), find_cases(folder, values, split=TEST, limit=test)
        )
    chosen: dict[bool, list[CaseFiles]] = {False: [], True: []}
    for files in find_cases(folder, values):
        chosen[hashlib.sha256(files.group.encode()).digest()[0] % TEST_SHARE == 0].append(files)
    if not (chosen[False] and chosen[True]):
        raise ConfigError(f"{folder} has too few cases to divide. Name them in split.json, as pool and test.")
    return Split(chosen[False][: pool or None], chosen[True][: test or None])


def content_of(files: CaseFiles) -> tuple:
    """Return what names a case: its files' bytes, and which voxels are the object."""
    digests = [hashlib.sha256(file.read_bytes()).hexdigest()[:24] for file in (files.image, files.label)]
    return files.id, files.group, files.values, *digests


def scans_and_labels(folder: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return the scans and the labels of a set, each by case.

    Raises:
        ConfigError: the folder has none of the known layouts.
    """
    for images, labels in FOLDERS:
        if (folder / images).is_dir():
            return _by_name(folder / images), _by_name(folder / labels)
    scans, truths = _brats(folder)
    if not scans:
        raise ConfigError(
            f"There is no folder {folder / 'images'}. Evaluation needs images/ and labels/ side by side, imagesTr/ and "
            "labelsTr/ as in the Decathlon, or a folder for each case with *_flair and *_seg as in BraTS."
        )
    return scans, truths


def _by_name(folder: Path) -> dict[str, Path]:
    """Return the readable files of a folder by their names without ending."""
    if not folder.is_dir():
        raise ConfigError(f"There is no folder {folder}. Evaluation needs images/ and labels/ side by side.")
    names = {file: _stem(file) for file in sorted(folder.iterdir())}
    return {stem: file for file, stem in names.items() if stem and not stem.startswith(".")}


def _brats(folder: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    scans: dict[str, Path] = {}
    truths: dict[str, Path] = {}
    for case in sorted(folder.iterdir()) if folder.is_dir() else ():
        for file in sorted(case.iterdir()) if case.is_dir() else ():
            stem = _stem(file).lower()
            if stem.endswith(BRATS_IMAGE):
                scans[case.name] = file
            elif stem.endswith(BRATS_LABELS):
                truths[case.name] = file
    return scans, truths


def _stem(file: Path) -> str:
    """Return a readable file's name without its ending, else nothing."""
    endings = sorted(READ_ENDINGS, key=len, reverse=True)
    ending = next((e for e in endings if file.name.lower().endswith(e)), None)
    return file.name[: -len(ending)] if ending else ""


def _split(folder: Path, name: str) -> list[str]:
    file = folder / "split.json"
    if not file.is_file():
        raise ConfigError(f"{folder} has no split.json. Leave --split out to use all cases.")
    splits = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(splits, dict) or name not in splits:
        raise ConfigError(f"{file} has no split {name!r}. It has: {', '.join(splits)}.")
    return sorted(map(str, splits[name]))
