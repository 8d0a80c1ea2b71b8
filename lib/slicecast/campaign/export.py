"""A campaign's labels as a training set (Medical Segmentation Decathlon, nnU-Net) and as a table.

Where the images and labels lie is told by the caller; labels get the same numbers in every case, by name.
"""

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

import numpy as np

from slicecast.campaign.state import State
from slicecast.campaign.summary import rows
from slicecast.errors import ConfigError, InputError
from slicecast.volume import read_volume, write_mask, write_volume

Layout = Literal["msd", "nnunet"]

IMAGES, LABELS, ENDING = "imagesTr", "labelsTr", ".nii.gz"


@dataclass(frozen=True, slots=True)
class LabelledCase:
    """An image with its label.

    Args:
        image: file or DICOM folder.
        names: of the label's values.
    """

    name: str
    image: Path
    label: Path
    names: Mapping[int, str]


def export_dataset(
    cases: Sequence[LabelledCase],
    folder: Path,
    *,
    layout: Layout,
    name: str,
    modality: str = "",
    progress: Callable[[int, int, str], None] | None = None,
) -> dict[str, Any]:
    """Write images, labels and `dataset.json`, which comes last and is returned.

    Args:
        modality: CT, MRI or another word; empty for what all scans say of themselves.

    Raises:
        InputError: there are no cases, or a label does not fit its image.
        ConfigError: the folder is not empty, or the scans do not say their modality.
    """
    if not cases:
        raise InputError("No case has a label of the chosen status, so there is nothing to export.")
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"The folder {folder} is not empty. Give a new one.")
    numbers = number_names(cases)
    found: set[str] = set()
    for done, case in enumerate(cases, start=1):
        found.add(_write_case(case, folder, layout, numbers))
        if progress is not None:
            progress(done, len(cases), case.name)
    content = _describe(cases, numbers, layout, name, modality or _one_modality(found))
    with _appearing(folder / "dataset.json") as stream:
        json.dump(content, stream, indent=2)
    return content


def number_names(cases: Sequence[LabelledCase]) -> dict[str, int]:
    """Number the names of all cases from 1, in the order of their most frequent own numbers."""
    seen: dict[str, list[int]] = {}
    for case in cases:
        for value, name in case.names.items():
            seen.setdefault(name, []).append(value)
    order = sorted(seen, key=lambda name: (max(set(seen[name]), key=seen[name].count), name))
    return {name: number for number, name in enumerate(order, start=1)}


def export_csv(state: State, file: Path) -> int:
    """Write one row per case; return how many."""
    table = rows(state)
    file.parent.mkdir(parents=True, exist_ok=True)
    with _appearing(file) as stream:
        writer = csv.DictWriter(stream, list(table[0]) if table else ["case"])
        writer.writeheader()
        writer.writerows({key: _harmless(value) for key, value in row.items()} for row in table)
    return len(table)


def _write_case(case: LabelledCase, folder: Path, layout: Layout, numbers: Mapping[str, int]) -> str:
    """Write one case; return its modality, or ""."""
    image, label = read_volume(case.image), read_volume(case.label)
    different = image.geometry.differences(label.geometry)
    if different:
        raise InputError(f"The label of '{case.name}' lies on another grid ({'; '.join(different)}). Save it again.")
    table = np.zeros(max(256, int(label.array.max()) + 1), dtype=np.uint8)
    for value in np.unique(label.array[label.array > 0]).astype(int):
        if value not in case.names:
            raise InputError(
                f"The label of '{case.name}' has voxels of value {value}, which has no name. Save it again."
            )
        table[value] = numbers[case.names[value]]
    suffix = "_0000" if layout == "nnunet" else ""
    for part in (IMAGES, LABELS):
        (folder / part).mkdir(parents=True, exist_ok=True)
    write_volume(folder / IMAGES / f"{case.name}{suffix}{ENDING}", image)
    write_mask(folder / LABELS / f"{case.name}{ENDING}", table[label.array.astype(int)], image.geometry)
    return str(image.meta.get("modality") or "")


def _one_modality(found: set[str]) -> str:
    if len(found) != 1 or found == {""}:
        raise ConfigError("The scans do not say whether they are CT or MRI. Give it with --modality.")
    (word,) = found
    return {"MR": "MRI"}.get(word, word)


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
    """Keep a spreadsheet from running what somebody typed as a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


@contextmanager
def _appearing(target: Path) -> Iterator[TextIO]:
    temporary = target.with_name(f".writing-{target.name}")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
