"""Masks as RTSTRUCT: contours on each slice, half way between pixels inside and outside, in mm."""

from collections.abc import Iterator, Mapping
from datetime import datetime

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage
from pydicom.valuerep import format_number_as_ds
from skimage.measure import find_contours

from slicecast.dicom.seg import source_images
from slicecast.dicom.series import Series, copied, implementation_uid, stable_uid
from slicecast.volume import Geometry

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
