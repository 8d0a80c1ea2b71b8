"""A campaign's labels as a training set (Medical Segmentation Decathlon, nnU-Net) and as a table.

The caller gives the files of images and labels; labels get the same numbers in every case, by name. A case that
cannot be written is left out and named. The folder appears whole, so that an export that failed can be repeated.
"""

import csv
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from slicecast.campaign.report import rows
from slicecast.campaign.state import State
from slicecast.errors import ConfigError, InputError, NotFound
from slicecast.files import appearing, file_sha256
from slicecast.volume import read_volume, write_mask, write_volume
from slicecast.volume.reading import dataset_description

Layout = Literal["msd", "nnunet"]

IMAGES, LABELS, ENDING = "imagesTr", "labelsTr", ".nii.gz"

_WORDS = {"MR": "MRI"}  # What data sets call a modality that DICOM calls otherwise


@dataclass(frozen=True, slots=True)
class LabelledCase:
    """An image with its label."""

    name: str
    image: Path  # file or DICOM folder
    label: Path
    names: Mapping[int, str]
    modality: str = ""  # where it is known from elsewhere than the image
    sha256: str = ""  # of the label as it was submitted, where that is known


@dataclass(frozen=True, slots=True)
class ExportedDataset:
    """What an export wrote."""

    content: Mapping[str, Any]  # of `dataset.json`
    skipped: Mapping[str, str]  # why cases were left out, by name


def export_dataset(
    cases: Sequence[LabelledCase], folder: Path, *, layout: Layout, name: str, modality: str = ""
) -> ExportedDataset:
    """Write images, labels and `dataset.json`; nothing remains of an export that fails.

    Args:
        modality: CT, MRI or another word; empty for what all scans say of themselves.

    Raises:
        InputError: there are no cases, or none of them can be written.
        ConfigError: the folder is not empty, or the scans do not say their modality, or different ones.
    """
    if not cases:
        raise InputError("No case has a label of the chosen status, so there is nothing to export.")
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"The folder {folder} is not empty. Give a new one.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".writing-{folder.name}-", dir=folder.parent) as work:
        growing = Path(work) / folder.name
        growing.mkdir()
        numbers = number_names(cases)
        found, skipped = _write_cases(cases, growing, layout, numbers)
        written = [case for case in cases if case.name not in skipped]
        content = _describe(written, numbers, layout, name, modality or _one_modality(found))
        (growing / "dataset.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
        if folder.is_dir():
            folder.rmdir()
        growing.replace(folder)
    return ExportedDataset(content, skipped)


def number_names(cases: Sequence[LabelledCase]) -> dict[str, int]:
    """Number the names of all cases from 1, in the order of their most frequent own numbers."""
    seen: dict[str, list[int]] = {}
    for case in cases:
        for value, name in case.names.items():
            seen.setdefault(name, []).append(value)
    order = sorted(seen, key=lambda name: (max(set(seen[name]), key=seen[name].count), name))
    return {name: number for number, name in enumerate(order, start=1)}


def read_modalities(studies: Path) -> dict[str, str]:
    """Return the modality of each image that a `dataset.json` in or beside the studies lists by name."""
    modalities = dataset_description(studies).get("modality")
    return {str(k): str(v) for k, v in modalities.items()} if isinstance(modalities, dict) else {}


def export_csv(state: State, file: Path) -> int:
    """Write one row per case; return how many."""
    table = rows(state)
    file.parent.mkdir(parents=True, exist_ok=True)
    with appearing(file) as part, part.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(table[0]) if table else ["case"])
        writer.writeheader()
        writer.writerows({key: _harmless(value) for key, value in row.items()} for row in table)
    return len(table)


def _write_cases(
    cases: Sequence[LabelledCase], folder: Path, layout: Layout, numbers: Mapping[str, int]
) -> tuple[set[str], dict[str, str]]:
    """Write the cases that can be written; return their modalities, and why the others were left out, by name."""
    found, skipped = set[str](), dict[str, str]()
    for case in cases:
        try:
            found.add(_write_case(case, folder, layout, numbers))
        except (InputError, NotFound) as error:
            skipped[case.name] = str(error)
    if len(skipped) == len(cases):
        first = next(iter(skipped.values()))
        raise InputError(f"None of the {len(cases)} cases can be exported. The first one: {first}")
    return found, skipped


def _write_case(case: LabelledCase, folder: Path, layout: Layout, numbers: Mapping[str, int]) -> str:
    """Write one case; return its modality, or ""."""
    if case.sha256 not in ("", file_sha256(case.label)):
        raise InputError("The label is not the one that was submitted: its file was changed in the folder.")
    image, label = read_volume(case.image), read_volume(case.label)
    different = image.geometry.differences(label.geometry)
    if different:
        raise InputError(f"The label of '{case.name}' lies on another grid ({'; '.join(different)}). Save it again.")
    renumbered = _renumbered(case, label.array, numbers)
    suffix = "_0000" if layout == "nnunet" else ""
    for part in (IMAGES, LABELS):
        (folder / part).mkdir(exist_ok=True)
    write_volume(folder / IMAGES / f"{case.name}{suffix}{ENDING}", image)
    write_mask(folder / LABELS / f"{case.name}{ENDING}", renumbered, image.geometry)
    return _WORDS.get(word := str(image.meta.get("modality") or case.modality), word)


def _renumbered(case: LabelledCase, label: np.ndarray, numbers: Mapping[str, int]) -> np.ndarray:
    """Return a label with the numbers of the data set."""
    renumbered = np.zeros(label.shape, np.uint8)
    for value in np.unique(label).tolist():
        if value == 0:
            continue
        if value not in case.names:
            raise InputError(
                f"The label of '{case.name}' has voxels of value {value:g}, which has no name. Save it again, or serve "
                "the studies once with its name among --labels."
            )
        renumbered[label == value] = numbers[case.names[value]]
    return renumbered


def _one_modality(found: set[str]) -> str:
    if found == {""}:
        raise ConfigError("The scans do not say whether they are CT or MRI. Give it with --modality.")
    if len(found) != 1:
        words = " and ".join(sorted(word or "not said" for word in found))
        raise ConfigError(f"The scans' modalities differ: {words}. Give one word for all with --modality.")
    return next(iter(found))


def _describe(
    cases: Sequence[LabelledCase], numbers: Mapping[str, int], layout: Layout, name: str, modality: str
) -> dict[str, Any]:
    if layout == "nnunet":
        return {
            "channel_names": {"0": modality},
            "labels": {"background": 0, **numbers},
            "numTraining": len(cases),
            "file_ending": ENDING,
            "name": name,
        }
    return {
        "name": name,
        "description": "Exported by Slicecast",
        "tensorImageSize": "3D",
        "modality": {"0": modality},
        "labels": {"0": "background", **{str(number): label for label, number in numbers.items()}},
        "numTraining": len(cases),
        "numTest": 0,
        "training": [
            {"image": f"./{IMAGES}/{case.name}{ENDING}", "label": f"./{LABELS}/{case.name}{ENDING}"} for case in cases
        ],
        "test": [],
    }


def _harmless(value: Any) -> Any:
    """Keep a spreadsheet from running typed text as a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
