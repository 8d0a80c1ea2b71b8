"""Read the one DICOM series of a folder, and say what is unusual about its slices."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from slicecast.errors import VolumeError
from slicecast.volume.geometry import DIRECTION_TOLERANCE
from slicecast.volume.headers import MAX_VOXELS, require_size
from slicecast.volume.itk import quiet_itk, reason, require_scalar

GAP_TOLERANCE = 0.02
"""Slice distances that differ from their median by more than this share are uneven."""
SAME_PLACE_MM = 1e-3
"""Slices closer than this lie at the same position."""
TILT_TOLERANCE_DEG = 0.5
"""A stack that leans by more than this is a tilted gantry."""

_MODALITY, _SERIES_UID, _DESCRIPTION = "0008|0060", "0020|000e", "0008|103e"
_POSITION, _ORIENTATION = "0020|0032", "0020|0037"


@dataclass(frozen=True, slots=True)
class DicomSeries:
    """An image with what its headers say; no patient data."""

    image: sitk.Image
    modality: str | None
    series_uid: str | None
    warnings: tuple[str, ...]


def read_series(folder: Path, *, max_voxels: int = MAX_VOXELS) -> DicomSeries:
    """Read the DICOM series in `folder` (not in its subfolders), slices sorted by position.

    Raises:
        VolumeError: there is no series, more than one, or it cannot be stacked to a volume of `max_voxels` or less.
    """
    quiet_itk()
    names = _files_of_only_series(folder)
    header = _read_header(names[0])
    require_scalar(header, folder)
    require_size([*header.GetSize(), len(names)], folder, max_voxels=max_voxels)
    if len(names) == 1:
        return _single_file(header, folder)
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames(names)
    reader.MetaDataDictionaryArrayUpdateOn()
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise VolumeError(f"The DICOM series in {folder} cannot be stacked to a volume: {reason(error)}.") from error
    warnings = _unusual(_offsets_mm(reader, len(names), folder), image.GetSpacing()[2], folder)
    return DicomSeries(image, _tag(header, _MODALITY), _tag(header, _SERIES_UID), warnings)


def read_dicom_file(path: Path, *, max_voxels: int = MAX_VOXELS) -> DicomSeries:
    """Read one DICOM file: a multi-frame volume, or a single slice.

    Raises:
        VolumeError: it is no readable image of one number per voxel, or has more than `max_voxels`.
    """
    quiet_itk()
    header = _read_header(str(path))
    require_scalar(header, path)
    require_size(header.GetSize(), path, max_voxels=max_voxels)
    return _single_file(header, path)


def _single_file(header: sitk.ImageFileReader, path: Path) -> DicomSeries:
    try:
        image = header.Execute()
    except RuntimeError as error:
        raise VolumeError(f"The pixels of {path} cannot be read: {reason(error)}.") from error
    return DicomSeries(image, _tag(header, _MODALITY), _tag(header, _SERIES_UID), ())


def _files_of_only_series(folder: Path) -> tuple[str, ...]:
    series = list(sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder)))
    if not series:
        raise VolumeError(
            f"{folder} holds no DICOM image series. Give the folder in which the .dcm files themselves lie, "
            "or a NIfTI, NRRD or MHA file."
        )
    files = {uid: sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid) for uid in series}
    if len(series) > 1:
        listed = "; ".join(_describe(uid, files[uid]) for uid in series[:8])
        raise VolumeError(
            f"{folder} holds {len(series)} DICOM series: {listed}{'; ...' if len(series) > 8 else ''}. "
            "Put the one to be used into a folder of its own."
        )
    return files[series[0]]


def _describe(uid: str, names: tuple[str, ...]) -> str:
    header = _read_header(names[0])
    words = [_tag(header, _MODALITY) or "?", _tag(header, _DESCRIPTION) or "without description"]
    return f"{' '.join(words)}, {len(names)} files ({uid})"


def _read_header(name: str) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(name)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise VolumeError(
            f"{name} is not a readable DICOM image (damaged, without header, or no image at all). Export it again."
        ) from error
    return reader


def _tag(header: sitk.ImageFileReader, key: str) -> str | None:
    return (header.GetMetaData(key).strip() or None) if header.HasMetaDataKey(key) else None


def _offsets_mm(reader: sitk.ImageSeriesReader, count: int, folder: Path) -> np.ndarray | None:
    """Give each slice's position as float64 (N, 3), columns: along its row, its column, its normal; mm."""
    if not all(reader.HasMetaDataKey(n, key) for n in range(count) for key in (_POSITION, _ORIENTATION)):
        return None
    positions = np.array([_floats(reader.GetMetaData(n, _POSITION), 3) for n in range(count)])
    orientations = np.array([_floats(reader.GetMetaData(n, _ORIENTATION), 6) for n in range(count)])
    if not (np.isfinite(positions).all() and np.isfinite(orientations).all()):
        return None
    if np.abs(orientations - orientations[0]).max() > DIRECTION_TOLERANCE:
        raise VolumeError(
            f"The slices of the series in {folder} lie in different directions (scout images?). "
            "Put the slices of one direction into a folder of their own."
        )
    row, column = orientations[0].reshape(2, 3)
    return positions @ np.stack([row, column, np.cross(row, column)], axis=1)


def _floats(text: str, count: int) -> list[float]:
    """Read `count` numbers; all of them NaN when there are not that many."""
    try:
        numbers = [float(part) for part in text.split("\\")]
    except ValueError:
        numbers = []
    return numbers if len(numbers) == count else [math.nan] * count


def _unusual(offsets_mm: np.ndarray | None, spacing_mm: float, folder: Path) -> tuple[str, ...]:
    if offsets_mm is None:
        return (f"The slices in {folder.name} do not say where they lie; their order and distance are a guess.",)
    steps = np.diff(offsets_mm[:, 2])
    if np.diff(np.sort(offsets_mm[:, 2])).min() < SAME_PLACE_MM or not ((steps > 0).all() or (steps < 0).all()):
        raise VolumeError(
            f"Several slices of the series in {folder} lie at the same position (time points or echoes). "
            "Put one time point into a folder of its own."
        )
    gaps = np.abs(steps)
    return tuple(filter(None, (_uneven_gaps(gaps, spacing_mm), _tilt(offsets_mm))))


def _uneven_gaps(gaps_mm: np.ndarray, spacing_mm: float) -> str | None:
    usual = float(np.median(gaps_mm))
    if np.abs(gaps_mm - usual).max() <= GAP_TOLERANCE * usual:
        return None
    return (
        f"The slices are unevenly spaced ({gaps_mm.min():.2f} to {gaps_mm.max():.2f} mm apart, or "
        "some are missing); "
        f"the volume is read as if they were {spacing_mm:.2f} mm apart, so lengths along the slices "
        "are not true."
    )


def _tilt(offsets_mm: np.ndarray) -> str | None:
    run = offsets_mm[-1] - offsets_mm[0]
    degrees = float(np.degrees(np.arctan2(np.hypot(run[0], run[1]), abs(run[2]))))
    if degrees <= TILT_TOLERANCE_DEG:
        return None
    return (
        f"The gantry was tilted by {degrees:.1f} degrees; the volume is read as an upright stack, "
        "so positions "
        "away from the first slice are sheared."
    )
