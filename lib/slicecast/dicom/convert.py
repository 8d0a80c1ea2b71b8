"""A volume as a DICOM series: one CT or MR image per slice, on exactly the volume's grid.

A viewer sorts slices along the cross product of row and column, so a series is always a right-handed grid; a
left-handed volume (NIfTI often is) is served with its slices in the opposite order. Every voxel stays where it is in
the patient.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, MRImageStorage
from pydicom.valuerep import format_number_as_ds

from slicecast.dicom.uids import stable_uid
from slicecast.volume import Geometry, Volume, choose_window
from slicecast.volume.windowing import looks_like_ct


def implementation_uid() -> UID:
    """Name this software in the files it writes."""
    return UID(stable_uid("slicecast", "implementation"))


_STEPS = 65535
"""Between the lowest and the highest of 16 bits."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a volume's numbers and grid are written.

    Args:
        geometry: of the series; right-handed.
        flipped: the volume stores its slices in the opposite order.
        modality: CT or MR.
        signed: the stored values are int16, else uint16.
        slope: numbers are stored value times slope plus intercept.
        low: lower end of the window.
        high: upper end of the window.
    """

    geometry: Geometry
    flipped: bool
    modality: str
    signed: bool
    slope: float
    intercept: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Names:
    """Whose the series is."""

    study_uid: str
    series_uid: str
    patient: str
    description: str


def encoding_of(volume: Volume, *, modality: str | None = None) -> Encoding:
    """Choose how to write a volume; without a modality, numbers that look like Hounsfield units are CT, others MR."""
    found = modality or volume.modality or ("CT" if looks_like_ct(volume) else "MR")
    signed, slope, intercept = _scale(volume.array)
    window = choose_window(Volume(volume.array, volume.geometry, {"modality": found}))
    flipped = bool(np.linalg.det(volume.geometry.direction_matrix) < 0)
    geometry = _turned(volume.geometry) if flipped else volume.geometry
    kind = "CT" if found == "CT" else "MR"
    return Encoding(geometry, flipped, kind, signed, slope, intercept, window.low, window.high)


def series_volume(volume: Volume, encoding: Encoding) -> Volume:
    """Bring a volume onto its series' grid."""
    return volume.with_array(volume.array[::-1] if encoding.flipped else volume.array, encoding.geometry)


def stored_values(volume: Volume, encoding: Encoding) -> np.ndarray:
    """Return the series' pixels, 16 bits, [k, j, i]; `slope` and `intercept` turn them back into the numbers."""
    array = series_volume(volume, encoding).array
    kind = np.dtype(np.int16 if encoding.signed else np.uint16)
    if (encoding.slope, encoding.intercept) == (1.0, 0.0):
        return array.astype(kind)
    scaled = (array.astype(np.float64) - encoding.intercept) / encoding.slope
    return np.clip(np.rint(scaled), np.iinfo(kind).min, np.iinfo(kind).max).astype(kind)


def slice_header(encoding: Encoding, names: Names, number: int) -> Dataset:
    """Write everything about slice `number` (k of the series' grid, from 0) but its pixels."""
    data = common_header(encoding, names)
    data.SOPClassUID = CTImageStorage if encoding.modality == "CT" else MRImageStorage
    data.SOPInstanceUID = slice_uid(names.series_uid, number)
    data.InstanceNumber = number + 1
    data.file_meta = _file_meta(data)
    data.is_little_endian, data.is_implicit_VR = True, False
    _place(data, encoding.geometry, number)
    _pixels(data, encoding)
    return data


def slice_uid(series_uid: str, number: int) -> str:
    """Name slice `number` of a series."""
    return f"{series_uid}.{number + 1}"


def common_header(encoding: Encoding, names: Names) -> Dataset:
    """Write the attributes of patient, study and series; nothing is known of the patient but the scan's name."""
    data = Dataset()
    data.SpecificCharacterSet = "ISO_IR 192"
    data.PatientName = data.PatientID = names.patient[:64]
    data.PatientBirthDate = data.PatientSex = ""
    data.StudyInstanceUID, data.SeriesInstanceUID = names.study_uid, names.series_uid
    data.StudyDate = data.StudyTime = data.AccessionNumber = data.ReferringPhysicianName = data.StudyID = ""
    data.StudyDescription = data.SeriesDescription = names.description[:64]
    data.SeriesNumber, data.Modality = 1, encoding.modality
    data.FrameOfReferenceUID = stable_uid("frame of reference", names.study_uid)
    data.PositionReferenceIndicator = data.Laterality = data.PatientPosition = ""
    data.Manufacturer = "Slicecast"
    return data


def _scale(array: np.ndarray) -> tuple[bool, float, float]:
    """Choose sign, slope and intercept; whole numbers that fit 16 bits are stored as they are."""
    low, high = float(array.min()), float(array.max())
    whole = array.dtype.kind in "iub" or bool(np.all(array == np.rint(array)))
    for kind in (np.int16, np.uint16):
        if whole and np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return kind is np.int16, 1.0, 0.0
    # as many digits as the header can hold, so that a reader computes with the very same numbers
    return False, float(format_number_as_ds((high - low) / _STEPS or 1.0)), float(format_number_as_ds(low))


def _turned(geometry: Geometry) -> Geometry:
    last = (0, 0, geometry.size_ijk[2] - 1)
    direction = geometry.direction_matrix * (1, 1, -1)
    origin: Any = geometry.index_to_world(last)
    return Geometry(geometry.size_ijk, geometry.spacing_mm, origin, direction)  # type: ignore[arg-type]


def _place(data: Dataset, geometry: Geometry, number: int) -> None:
    columns, rows, _ = geometry.size_ijk
    i_mm, j_mm, k_mm = geometry.spacing_mm
    data.Rows, data.Columns = rows, columns
    data.PixelSpacing = _numbers(j_mm, i_mm)
    data.SliceThickness = data.SpacingBetweenSlices = format_number_as_ds(float(k_mm))
    data.ImagePositionPatient = _numbers(*geometry.index_to_world((0, 0, number)))
    data.ImageOrientationPatient = _numbers(*geometry.direction_matrix.T[:2].ravel())


def _pixels(data: Dataset, encoding: Encoding) -> None:
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, int(encoding.signed)
    data.WindowCenter = format_number_as_ds((encoding.low + encoding.high) / 2)
    data.WindowWidth = format_number_as_ds(encoding.high - encoding.low)
    data.ImageType = ["DERIVED", "SECONDARY", "AXIAL" if encoding.modality == "CT" else "OTHER"]
    data.AcquisitionNumber = None
    if encoding.modality == "CT" or (encoding.slope, encoding.intercept) != (1.0, 0.0):  # unusual in MR
        data.RescaleSlope, data.RescaleIntercept = _numbers(encoding.slope, encoding.intercept)
    if encoding.modality == "CT":
        data.KVP, data.RescaleType = None, "HU"
        del data.SpacingBetweenSlices  # not an attribute of CT
    else:
        data.RepetitionTime = None
        data.ScanningSequence, data.SequenceVariant = "RM", "NONE"
        data.ScanOptions = data.MRAcquisitionType = ""
        data.EchoTime = data.EchoTrainLength = None


def _file_meta(data: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    meta.TransferSyntaxUID, meta.ImplementationClassUID = ExplicitVRLittleEndian, implementation_uid()
    return meta


def _numbers(*values: float) -> list[str]:
    return [format_number_as_ds(float(value)) for value in values]
