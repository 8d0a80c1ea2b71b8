"""The labels of a studies folder, written as NIfTI, NRRD, DICOM SEG or RTSTRUCT.

An RTSTRUCT holds contours on each slice, half way between pixels inside and outside, in mm.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage
from pydicom.valuerep import format_number_as_ds
from skimage.measure import find_contours

from slicecast.dicom.catalogue import Catalogue
from slicecast.dicom.seg import label_names, mask_of_label, seg_of_label, source_images
from slicecast.dicom.series import Series, copied, implementation_uid, stable_uid
from slicecast.errors import InputError, NotFound, SlicecastError
from slicecast.files import appearing
from slicecast.volume import Geometry, read_volume, write_mask

STUDY_COMPONENT = "1.2.840.10008.3.1.2.3.1"  # SOP class by which RTSTRUCT names a study
_COPIED = (
    *("SpecificCharacterSet", "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName", "StudyDescription"),
)
_COLOURS = ((255, 99, 71), (60, 179, 113), (65, 105, 225), (255, 215, 0), (186, 85, 211), (0, 206, 209))


def write_rtstruct(
    mask: np.ndarray, geometry: Geometry, series: Series, labels: Mapping[str, int], *, now: datetime
) -> Dataset:
    """Write a mask of a series as RTSTRUCT. A hole is a contour inside another; a label without voxels has none.

    Args:
        mask: uint8 [k, j, i] on the series' grid.
        series: the images that were annotated.
        labels: each label's value by name.
        now: date and time of its making.

    Raises:
        GeometryError: the series has other slices than the mask.
    """
    images = source_images(series, geometry)
    images = images if len(images) == geometry.size_ijk[2] else images * geometry.size_ijk[2]
    data = _header(images[0], series, now)
    frame = str(images[0].get("FrameOfReferenceUID", "") or stable_uid("frame of reference", series.uid))
    data.FrameOfReferenceUID = frame
    data.ReferencedFrameOfReferenceSequence = Sequence([_frame_of_reference(frame, images)])
    data.StructureSetROISequence = Sequence(_roi(n, name, frame) for n, name in enumerate(labels, start=1))
    data.ROIContourSequence = Sequence(
        _contours(n, mask == value, geometry, images) for n, value in enumerate(labels.values(), start=1)
    )
    data.RTROIObservationsSequence = Sequence(_observation(n) for n in range(1, len(labels) + 1))
    return data


def outlines(plane: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the closed outlines of a mask (H, W), each float (N, 2) as (x, y) in pixels, half way to the outside."""
    padded = np.pad(plane.astype(np.float32), 1)
    for outline in find_contours(padded, 0.5):
        yield outline[:-1, ::-1] - 1


def _contours(number: int, mask: np.ndarray, geometry: Geometry, images: list[Dataset]) -> Dataset:
    item = Dataset()
    item.ROIDisplayColor = list(_COLOURS[(number - 1) % len(_COLOURS)])
    item.ReferencedROINumber = number
    found = [
        _contour(outline, k, geometry, images[k])
        for k in np.flatnonzero(mask.any(axis=(1, 2))).tolist()
        for outline in outlines(mask[k])
    ]
    if found:
        item.ContourSequence = Sequence(found)
    return item


def _contour(outline: np.ndarray, k: int, geometry: Geometry, image: Dataset) -> Dataset:
    points = geometry.index_to_world(np.column_stack([outline, np.full(len(outline), k)]))
    item = Dataset()
    item.ContourImageSequence = Sequence([_image(image)])
    item.ContourGeometricType = "CLOSED_PLANAR"
    item.NumberOfContourPoints = len(points)
    item.ContourData = [format_number_as_ds(round(float(number), 4)) for number in points.ravel()]
    return item


def _header(image: Dataset, series: Series, now: datetime) -> Dataset:
    data = copied(image, _COPIED)
    day, time = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    data.SOPClassUID = RTStructureSetStorage
    data.SeriesInstanceUID = stable_uid("rtstruct", series.uid, day, time)
    data.SOPInstanceUID = f"{data.SeriesInstanceUID}.1"
    data.Modality, data.SeriesNumber, data.SeriesDescription = "RTSTRUCT", 2000, "Slicecast contours"
    data.Manufacturer, data.OperatorsName, data.InstanceNumber = "Slicecast", "", 1
    data.PositionReferenceIndicator = ""
    data.StructureSetLabel, data.StructureSetDate, data.StructureSetTime = "SLICECAST", day, time
    data.ApprovalStatus = "UNAPPROVED"
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = RTStructureSetStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.ImplementationClassUID = implementation_uid()
    data.is_little_endian, data.is_implicit_VR = True, False
    return data


def _frame_of_reference(frame: str, images: list[Dataset]) -> Dataset:
    series, study, item = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = images[0].SeriesInstanceUID
    series.ContourImageSequence = Sequence(_image(image) for image in {i.SOPInstanceUID: i for i in images}.values())
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = STUDY_COMPONENT, images[0].StudyInstanceUID
    study.RTReferencedSeriesSequence = Sequence([series])
    item.FrameOfReferenceUID = frame
    item.RTReferencedStudySequence = Sequence([study])
    return item


def _image(image: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return item


def _roi(number: int, name: str, frame: str) -> Dataset:
    item = Dataset()
    item.ROINumber, item.ROIName = number, name[:64]
    item.ReferencedFrameOfReferenceUID, item.ROIGenerationAlgorithm = frame, "SEMIAUTOMATIC"
    return item


def _observation(number: int) -> Dataset:
    item = Dataset()
    item.ObservationNumber = item.ReferencedROINumber = number
    item.RTROIInterpretedType = item.ROIInterpreter = ""
    return item


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
