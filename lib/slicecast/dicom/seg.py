"""Masks and saved labels as DICOM SEG, and back: one binary segment per label, on the annotated series' grid."""

import hashlib
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from highdicom import AlgorithmIdentificationSequence, PlanePositionSequence
from highdicom.enum import CoordinateSystemNames
from highdicom.seg import Segmentation, SegmentDescription
from highdicom.sr.coding import CodedConcept
from pydicom.dataset import Dataset

import slicecast
from slicecast.config import config_dir, read_config, refuse_unknown_keys
from slicecast.dicom.series import Series, stable_uid
from slicecast.errors import ConfigError, GeometryError, InputError, VolumeError
from slicecast.volume import Geometry, read_volume
from slicecast.volume.dicom import DAMAGED
from slicecast.volume.grid import onto_grid

FILE = "terminology.yaml"
SIDES = {"left": ("7771000", "SCT", "Left"), "right": ("24028007", "SCT", "Right")}

Code = tuple[str, str, str]  # Value, scheme, meaning


@dataclass(frozen=True, slots=True)
class Term:
    """Codes of a label: category, type, and side if its name has one."""

    category: Code
    type: Code
    side: Code | None = None

    def concepts(self) -> tuple[CodedConcept, CodedConcept]:
        """Return category and type as coded concepts."""
        return concept(self.category), concept(self.type)


def concept(code: Code) -> CodedConcept:
    """Turn a code into a DICOM item."""
    value, scheme, meaning = code
    return CodedConcept(value, scheme, meaning)


def term_for(name: str) -> Term:
    """Look up a label's name: whole, then without its side, then the default.

    Raises:
        ConfigError: `terminology.yaml` is wrong.
    """
    default, structures = _load(str(config_dir()))
    words = _plain(name)
    if words in structures:
        return structures[words]
    side = next((word for word in SIDES if word in words.split()), None)
    rest = " ".join(word for word in words.split() if word != side)
    found = structures.get(rest, default)
    return Term(found.category, found.type, SIDES[side] if side else None)


def _plain(name: str) -> str:
    return " ".join(re.split(r"[\s_\-]+", name.strip().casefold()))


@lru_cache(maxsize=8)
def _load(folder: str) -> tuple[Term, dict[str, Term]]:
    where = f"{folder}/{FILE}"
    content = read_config(FILE, known=("default", "structures"))
    structures: dict[str, Term] = {}
    for entry in content.get("structures") or []:
        refuse_unknown_keys(entry, ("names", "category", "type"), where=where)
        for name in entry.get("names", ()):
            structures.setdefault(_plain(str(name)), _term(entry, where))
    return _term(content.get("default") or {}, where), structures


def _term(entry: dict[str, Any], where: str) -> Term:
    return Term(_code(entry.get("category"), where), _code(entry.get("type"), where))


def _code(value: Any, where: str) -> Code:
    if not isinstance(value, list) or len(value) != 3 or not all(str(word).strip() for word in value):
        raise ConfigError(f"{where} holds the code {value!r}; write [value, scheme, meaning].")
    return str(value[0]), str(value[1]), str(value[2])


ALGORITHM = "Slicecast"
ARTIFICIAL_INTELLIGENCE = CodedConcept("123110", "DCM", "Artificial Intelligence")
MANUFACTURER = "Slicecast"
MAX_LABEL = 64  # Letters in a segment's label
MAX_NUMBER = 255  # Of a segment that is read: labels are masks of 8 bits
PLACE_TOLERANCE_MM = 0.1  # A frame of a SEG that lies farther than this from every slice belongs to another grid

_TYPE_2 = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime"),
    *("AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator"),
)


@dataclass(frozen=True, slots=True)
class SegNames:
    """How a segmentation is named."""

    labels: Mapping[str, int]  # each label's value in the mask, by name
    version: str
    series_uid: str  # of the new series; another one for every version of a label
    description: str = "Slicecast segmentation"
    creator: str | None = None  # the user who made it


def write_seg(mask: np.ndarray, geometry: Geometry, series: Series, names: SegNames) -> Dataset:
    """Write a mask of a series as DICOM SEG; a label without voxels stays as an empty segment.

    Args:
        mask: uint8 [k, j, i] on the grid of the series, as `read_volume` of its `scan_path` gives it.
        series: the images that were annotated.
        names: what the mask's values are, and how to name the object.

    Raises:
        VolumeError: there is no label, or a value has no name.
        GeometryError: the series has other slices than the mask.
    """
    numbers = _segments(mask, names.labels)
    sources = source_images(series, geometry)
    place: dict[str, Any] = {} if len(sources) > 1 else _plane_positions(geometry)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The string .* unlikely to represent the intended person name")
        data = _segmentation(numbers, sources, series, names, place)
    data.SpecificCharacterSet = "ISO_IR 192"  # the series' own may have no letter for a label's name
    return data


def read_seg(data: Dataset, geometry: Geometry) -> tuple[np.ndarray, dict[str, int]]:
    """Put a DICOM SEG onto a grid of slices; where segments overlap, the later one wins.

    Returns:
        uint8 [k, j, i], and each segment's value by its label.

    Raises:
        VolumeError: it is damaged, not a binary segmentation, or numbers a segment above MAX_NUMBER.
        GeometryError: it lies on another grid.
    """
    try:
        return _read(data, geometry)
    except InputError:
        raise
    except DAMAGED as error:
        raise VolumeError(f"The DICOM SEG cannot be read ({str(error)[:80]}). Export it again.") from error


def _read(data: Dataset, geometry: Geometry) -> tuple[np.ndarray, dict[str, int]]:
    if data.get("Modality") != "SEG" or data.get("SegmentationType") != "BINARY":
        raise VolumeError("Only binary DICOM SEG objects can be read. Export the segmentation as a binary one.")
    if (data.Columns, data.Rows) != geometry.size_ijk[:2]:
        raise GeometryError(
            f"The segmentation has {data.Columns} x {data.Rows} pixels, its images {geometry.size_ijk[:2]}. "
            "Save it on the images' own grid."
        )
    mask = np.zeros(geometry.shape_kji, np.uint8)
    pixels = np.atleast_3d(data.pixel_array) if data.get("NumberOfFrames", 1) == 1 else data.pixel_array
    pixels = pixels.reshape(-1, data.Rows, data.Columns)
    shared = data.get("SharedFunctionalGroupsSequence", [Dataset()])[0]
    for frame, groups in zip(pixels, data.PerFrameFunctionalGroupsSequence, strict=True):
        value = int(_group(groups, shared, "SegmentIdentificationSequence").ReferencedSegmentNumber)
        if value > MAX_NUMBER:
            raise VolumeError(f"The segmentation holds segment {value}; up to {MAX_NUMBER} are read. Leave some out.")
        corners = _corners(groups, shared, geometry)
        mask[_slice_at(corners, geometry)][frame.astype(bool)] = value
    return mask, {str(item.SegmentLabel): int(item.SegmentNumber) for item in data.SegmentSequence}


def referenced_series(data: Dataset) -> str:
    """Return the UID of the series that an object refers to; "" if it names none."""
    sequence = data.get("ReferencedSeriesSequence") or []
    return str(sequence[0].get("SeriesInstanceUID", "")) if sequence else ""


def source_images(series: Series, geometry: Geometry) -> list[Dataset]:
    """Return the headers of a series in the order of the grid's slices; one of a multi-frame object.

    Raises:
        GeometryError: there are not as many images as slices.
    """
    images = [_complete(series.read(uid, pixels=False), geometry) for uid in series.sop_uids]
    frames = int(images[0].get("NumberOfFrames") or 1)
    if len(images) == 1 and frames == geometry.size_ijk[2]:
        if frames > 1 and "SharedFunctionalGroupsSequence" not in images[0]:
            raise VolumeError("The multi-frame object does not say where its frames lie, so nothing can refer to them.")
        return images
    if len(images) != geometry.size_ijk[2]:
        raise GeometryError(f"The series has {len(images)} images, the mask {geometry.size_ijk[2]} slices.")
    normal = geometry.direction_matrix[:, 2]
    return sorted(images, key=lambda image: float(np.dot(np.array(image.ImagePositionPatient, float), normal)))


def named_values(info: Mapping[str, Any]) -> dict[str, int]:
    """Return each label's value by name, 1 to 255, that a label's record has: from `label_info`, else `label_names`."""
    entries = info.get("label_info")
    listed = entries if isinstance(entries, list) else []
    named = {str(e["name"]): int(e["idx"]) for e in listed if isinstance(e, Mapping) and "name" in e and "idx" in e}
    params = info.get("params") if isinstance(info.get("params"), Mapping) else {}
    named = named or {str(name): int(value) for name, value in (params or {}).get("label_names", {}).items()}
    return {name: value for name, value in named.items() if 0 < value < 256}


def label_names(info: Mapping[str, Any], mask: np.ndarray) -> dict[str, int]:
    """Return each label's value by name; values of the mask that the label's record does not name get a number."""
    named = named_values(info)
    unnamed = set(np.unique(mask).tolist()) - {0} - set(named.values())
    return {**named, **{f"label {value}": value for value in sorted(unnamed)}} or {"object": 1}


def mask_of_label(label: Path, grid: Geometry) -> np.ndarray:
    """Read a label's file onto the grid of its images, uint8 [k, j, i].

    Raises:
        VolumeError: the label is no mask.
        GeometryError: it does not lie on that grid.
    """
    return onto_grid(read_volume(label), grid).array.astype(np.uint8)


def seg_of_label(label: Path, series: Series, info: Mapping[str, Any]) -> Dataset:
    """Make a DICOM SEG of a label's file; the same file and record give the same identifiers.

    Raises:
        VolumeError: the label is no mask.
        GeometryError: it does not lie on the series' grid.
    """
    grid: Geometry = read_volume(series.scan_path()).geometry
    mask = mask_of_label(label, grid)
    digest = hashlib.blake2b(label.read_bytes() + repr(sorted(info.items(), key=str)).encode(), digest_size=16)
    names = SegNames(
        labels=label_names(info, mask),
        version=slicecast.__version__,
        series_uid=stable_uid("segmentation", series.uid, digest.hexdigest()),
        creator=str(info["user"]) if info.get("user") else None,
    )
    return write_seg(mask, grid, series, names)


def _segmentation(
    numbers: np.ndarray, sources: Sequence[Dataset], series: Series, names: SegNames, place: Mapping[str, Any]
) -> Dataset:
    return Segmentation(
        source_images=sources,
        pixel_array=numbers,
        segmentation_type="BINARY",
        segment_descriptions=[_describe(n, name, names, series) for n, name in enumerate(names.labels, start=1)],
        series_instance_uid=names.series_uid,
        series_number=int(series.summary.get("SeriesNumber") or 0) + 1000,
        sop_instance_uid=f"{names.series_uid}.1",
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=ALGORITHM,
        software_versions=names.version,
        device_serial_number="0",
        content_label="SEGMENTATION",
        content_description=names.description[:64],
        content_creator_name=names.creator,
        series_description=names.description[:64],
        **place,
    )


def _segments(mask: np.ndarray, labels: Mapping[str, int]) -> np.ndarray:
    """Renumber values to 1, 2, 3 ... in the order of the labels."""
    table = np.zeros(256, np.uint8)
    for number, value in enumerate(labels.values(), start=1):
        table[value] = number
    unnamed = sorted(set(np.unique(mask).tolist()) - {0} - set(labels.values()))
    if unnamed or not labels:
        raise VolumeError(f"The mask's values {unnamed[:8]} have no name. Give each label's name and number.")
    return table[mask]


def _describe(number: int, name: str, names: SegNames, series: Series) -> SegmentDescription:
    term = term_for(name)
    category, kind = term.concepts()
    item = SegmentDescription(
        segment_number=number,
        segment_label=name[:MAX_LABEL],
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type="SEMIAUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=ALGORITHM, family=ARTIFICIAL_INTELLIGENCE, version=names.version
        ),
        tracking_uid=stable_uid("tracking", series.uid, name),
        tracking_id=name[:MAX_LABEL],
    )
    if term.side:
        item.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [concept(term.side)]
    return item


def _plane_positions(geometry: Geometry) -> dict[str, Any]:
    """Return the position of each slice, for a multi-frame source whose frames may be stored in another order."""
    patient = CoordinateSystemNames.PATIENT
    positions = (geometry.index_to_world((0, 0, k)) for k in range(geometry.size_ijk[2]))
    return {"plane_positions": [PlanePositionSequence(patient, position.tolist()) for position in positions]}


def _complete(image: Dataset, geometry: Geometry) -> Dataset:
    """Add missing type 2 attributes (required, may be empty), which old files often lack, and the slices' thickness."""
    if not image.get("SliceThickness"):
        image.SliceThickness = f"{geometry.spacing_mm[2]:.8g}"
    for keyword in _TYPE_2:
        if keyword not in image:
            setattr(image, keyword, "")
    return image


def _group(groups: Dataset, shared: Dataset, keyword: str) -> Dataset:
    for place in (groups, shared):
        if place.get(keyword):
            return place[keyword][0]
    raise VolumeError(f"The segmentation lacks {keyword}, so its frames cannot be placed. Export it again.")


def _corners(groups: Dataset, shared: Dataset, geometry: Geometry) -> np.ndarray:
    """Return where a frame's first pixel, the last one of its first row and of its first column lie, (3, 3) in mm."""
    position = _group(groups, shared, "PlanePositionSequence").ImagePositionPatient
    orientation = _group(groups, shared, "PlaneOrientationSequence").ImageOrientationPatient
    down_mm, across_mm = map(float, _group(groups, shared, "PixelMeasuresSequence").PixelSpacing)
    along_row, along_column = np.array(orientation, float).reshape(2, 3)
    columns, rows, _ = geometry.size_ijk
    ends = [np.zeros(3), along_row * across_mm * (columns - 1), along_column * down_mm * (rows - 1)]
    return np.array(position, float) + ends


def _slice_at(corners: np.ndarray, geometry: Geometry) -> int:
    indices, (columns, rows, count) = geometry.world_to_index(corners), geometry.size_ijk
    k = min(max(round(float(indices[0, 2])), 0), count - 1)
    off_mm = np.abs((indices - [(0, 0, k), (columns - 1, 0, k), (0, rows - 1, k)]) * geometry.spacing_mm).max(axis=1)
    near_mm = max(PLACE_TOLERANCE_MM, min(geometry.spacing_mm) / 2)  # spacings may be rounded in a header
    if off_mm[0] > PLACE_TOLERANCE_MM or off_mm.max() > near_mm:
        raise GeometryError(
            f"A frame of the segmentation lies {off_mm.max():.2f} mm from the images' slices. Save it on their grid."
        )
    return k
