"""DICOM files as scanners make them, slice by slice or as one enhanced object; pixels compressed or not."""

from pathlib import Path
from typing import Any

import numpy as np
from highdicom.frame import encode_frame
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian, RLELossless, generate_uid

CLASSES = {"CT": "1.2.840.10008.5.1.4.1.1.2", "MR": "1.2.840.10008.5.1.4.1.1.4"}
ENHANCED = {"CT": "1.2.840.10008.5.1.4.1.1.2.1", "MR": "1.2.840.10008.5.1.4.1.1.4.1"}
UPRIGHT = (1, 0, 0, 0, 1, 0)


def image(path: Path, frames: np.ndarray, *, sop_class: str, modality: str, series: str = "1.2.3.4") -> FileDataset:
    """Make an image of uint16 frames [n, rows, columns] that does not say yet where it lies."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = UID(sop_class), ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.is_little_endian, data.is_implicit_VR = True, False
    data.SOPClassUID, data.SOPInstanceUID = UID(sop_class), meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID, data.SeriesInstanceUID, data.Modality = "1.2.3", series, modality
    data.FrameOfReferenceUID = "1.2.9"
    data.PatientName = data.PatientID = data.StudyDate = data.StudyTime = data.AccessionNumber = ""
    data.Rows, data.Columns = frames.shape[1:]
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation, data.SamplesPerPixel = 15, 0, 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.PixelData = frames.astype(np.uint16).tobytes()
    data["PixelData"].VR = "OW"
    return data


def write_slices(
    folder: Path, frames: np.ndarray, positions: Any, *, orientation: Any = UPRIGHT, modality: str = "MR", **more: Any
) -> Path:
    """Write one file for each slice, named against their order; `more` are attributes, one value or one for each."""
    folder.mkdir(parents=True, exist_ok=True)
    for n, position in enumerate(positions):
        path = folder / f"{999 - n - 100 * len(list(folder.iterdir()))}.dcm"
        data = image(path, frames[n : n + 1], sop_class=CLASSES[modality], modality=modality)
        data.ImagePositionPatient, data.ImageOrientationPatient = list(map(float, position)), list(orientation)
        data.PixelSpacing, data.InstanceNumber = [0.5, 0.25], n + 1
        for word, value in more.items():
            setattr(data, word, value[n] if isinstance(value, list) else value)
        data.save_as(path)
    return folder


def write_enhanced(
    path: Path, frames: np.ndarray, positions: Any, *, orientation: Any = UPRIGHT, modality: str = "MR",
    slopes: Any = None,
) -> Path:  # fmt: skip
    """Write one enhanced multi-frame object, frames in the order given; `slopes` are scales for each frame."""
    data = image(path, frames, sop_class=ENHANCED[modality], modality=modality)
    data.NumberOfFrames, data.InstanceNumber = len(frames), 1
    shared = Dataset()
    shared.PlaneOrientationSequence = _one(ImageOrientationPatient=list(orientation))
    shared.PixelMeasuresSequence = _one(PixelSpacing=[0.5, 0.25], SliceThickness=2.0)
    if slopes is None:
        shared.PixelValueTransformationSequence = _scale(2.0)
    data.SharedFunctionalGroupsSequence = Sequence([shared])
    groups = []
    for n, position in enumerate(positions):
        group = Dataset()
        group.PlanePositionSequence = _one(ImagePositionPatient=list(map(float, position)))
        if slopes is not None:
            group.PixelValueTransformationSequence = _scale(slopes[n])
        groups.append(group)
    data.PerFrameFunctionalGroupsSequence = Sequence(groups)
    data.save_as(path)
    return path


def compress(data: FileDataset, syntax: str) -> None:
    """Compress an image's frames, in place."""
    if syntax == RLELossless:
        data.compress(syntax)
        return
    frames = np.frombuffer(data.PixelData, np.uint16).reshape(-1, data.Rows, data.Columns)
    encoded = [
        encode_frame(
            frame,
            transfer_syntax_uid=syntax,
            bits_allocated=16,
            bits_stored=data.BitsStored,
            photometric_interpretation="MONOCHROME2",
            pixel_representation=0,
        )
        for frame in frames
    ]
    data.PixelData = encapsulate(encoded)
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = UID(syntax)


def _one(**attributes: Any) -> Sequence:
    item = Dataset()
    for word, value in attributes.items():
        setattr(item, word, value)
    return Sequence([item])


def _scale(slope: float) -> Sequence:
    return _one(RescaleSlope=slope, RescaleIntercept=-10.0, RescaleType="US")
