"""The labels of a studies folder, written as NIfTI, NRRD, DICOM SEG or RTSTRUCT."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from slicecast.dicom.catalogue import Catalogue
from slicecast.dicom.rtstruct import write_rtstruct
from slicecast.dicom.seg import label_names, mask_of_label, seg_of_label
from slicecast.errors import InputError, NotFound, SlicecastError
from slicecast.files import appearing
from slicecast.volume import read_volume, write_mask

INDEX = "datastore_v2.json"  # MONAI Label's list of a folder's images and labels
FORMATS = {"nifti": ".nii.gz", "nrrd": ".nrrd", "dicom-seg": ".dcm", "rtstruct": ".dcm"}
"""Formats that can be written, and their file endings."""


@dataclass(frozen=True, slots=True)
class StoredLabel:
    """A label as MONAI Label's folder keeps it."""

    image_id: str
    image: Path | None  # the image's file; None for a DICOM series
    file: Path
    info: Mapping[str, Any]  # what the client sent with it


def stored_labels(studies: Path, *, tag: str = "final") -> list[StoredLabel]:
    """Return the labels of a studies folder under a tag, by image.

    Raises:
        InputError: the folder has no list of labels, or it cannot be read.
    """
    try:
        objects = json.loads((studies / INDEX).read_text(encoding="utf-8"))["objects"]
    except OSError as error:
        raise InputError(
            f"{studies} has no {INDEX}. Give the folder that `slicecast serve --studies` served."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{studies / INDEX} is damaged. Start `slicecast serve` on the folder once; it mends it."
        ) from error
    found = []
    for image_id, entry in sorted(objects.items()):
        label = entry["labels"].get(tag)
        if label is not None:
            extension = entry["image"]["ext"]
            image = studies / f"{image_id}{extension}" if extension else None
            file = studies / "labels" / tag / f"{image_id}{label['ext']}"
            found.append(StoredLabel(image_id, image, file, label["info"]))
    return found


def export_labels(
    studies: Path,
    labels: list[StoredLabel],
    target: Path,
    *,
    kind: str,
    work: Path,
    now: datetime,
    skip: Callable[[StoredLabel, SlicecastError], None],
) -> Iterator[tuple[StoredLabel, Path]]:
    """Write labels into the folder `target`, one file each, and yield them as they are done.

    Args:
        kind: one of `FORMATS`.
        work: folder for files derived from the images.
        now: date and time to write into the files.
        skip: called with a label that cannot be written: it or its image is missing, damaged or on another grid.

    Raises:
        InputError: the format is unknown.
    """
    if kind not in FORMATS:
        raise InputError(f"Unknown format '{kind}'. Choose {', '.join(FORMATS)}.")
    files = {label.image_id: label.image for label in labels if label.image is not None}
    catalogue = Catalogue(studies, lambda: files, work, skip=(studies / "labels", target))
    target.mkdir(parents=True, exist_ok=True)
    for label in labels:
        path = target / f"{label.image_id}{FORMATS[kind]}"
        try:
            _write(label, path, catalogue, kind=kind, now=now)
        except (InputError, NotFound) as error:
            skip(label, error)
        else:
            yield label, path


def _write(label: StoredLabel, path: Path, catalogue: Catalogue, *, kind: str, now: datetime) -> None:
    if not label.file.is_file():
        raise NotFound(f"The label {label.file} is gone. Bring it back, or start `slicecast serve` to mend the list.")
    if kind in ("nifti", "nrrd"):
        volume = read_volume(label.file)
        write_mask(path, volume.array, volume.geometry)
        return
    series = catalogue.of_image(label.image_id)
    if series is None:
        raise NotFound(f"The image {label.image_id} is not in the folder, but its label needs it for {kind}.")
    if kind == "dicom-seg":
        data = seg_of_label(label.file, series, label.info)
    else:
        grid = read_volume(series.scan_path()).geometry
        mask = mask_of_label(label.file, grid)
        data = write_rtstruct(mask, grid, series, label_names(label.info, mask), now=now)
    with appearing(path, synced=False) as part:
        data.save_as(part, write_like_original=False)
