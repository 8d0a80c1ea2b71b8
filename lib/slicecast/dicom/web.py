"""What DICOMweb answers with: search results (QIDO-RS, DICOM PS3.18, 8.3 and 10.6), and the parts of an instance
that viewers fetch one by one: frames, header as JSON, large values, a rendered picture."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.encaps import generate_pixel_data_frame
from pydicom.pixel_data_handlers.util import apply_modality_lut, apply_voi_lut
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian

from slicecast.dicom.series import Series, copied
from slicecast.errors import InputError, NotFound

CONTROL = ("limit", "offset", "fuzzymatching", "includefield")  # Parameters that are no attributes
MAX_RESULTS = 5000  # Results in one response; `offset` gets the rest

_STUDY = (
    *("SpecificCharacterSet", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"),
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID", "StudyDescription"),
)
_SERIES = ("Modality", "SeriesDescription", "SeriesInstanceUID", "SeriesNumber", "SeriesDate", "SeriesTime")
_INSTANCE = ("SOPClassUID", "SOPInstanceUID", "InstanceNumber", "Rows", "Columns", "BitsAllocated", "NumberOfFrames")
_RANGES = ("DA", "TM", "DT")
_HEX = re.compile(r"[0-9A-Fa-f]{8}")


def studies(series: Iterable[Series], root: str) -> list[Dataset]:
    """Describe the studies to which series belong; `root` is the start of their URLs."""
    grouped: dict[str, list[Series]] = {}
    for one in series:
        grouped.setdefault(str(one.summary.StudyInstanceUID), []).append(one)
    return [_study(uid, members, root) for uid, members in grouped.items()]


def series_of(series: Iterable[Series], root: str) -> list[Dataset]:
    """Describe series."""
    found = []
    for one in series:
        data = copied(one.summary, (*_STUDY, *_SERIES, "BodyPartExamined"))
        data.NumberOfSeriesRelatedInstances = len(one.sop_uids)
        data.RetrieveURL = f"{root}/studies/{data.StudyInstanceUID}/series/{one.uid}"
        found.append(data)
    return found


def instances_of(series: Iterable[Series], root: str) -> Iterator[Dataset]:
    """Describe the instances of series; reads their headers."""
    for one in series:
        for uid in one.sop_uids:
            data = copied(one.summary, (*_STUDY, *_SERIES))
            data.update(copied(one.read(uid, pixels=False), _INSTANCE))
            data.SOPInstanceUID = uid
            data.RetrieveURL = f"{root}/studies/{data.StudyInstanceUID}/series/{one.uid}/instances/{uid}"
            yield data


def select(found: Iterable[Dataset], parameters: Sequence[tuple[str, str]]) -> list[Dataset]:
    """Return the requested page of what matches the parameters of a search.

    Keys are keywords or tags; `*` and `?` stand for letters, `a-b` for a range of dates, a comma or backslash
    separates several UIDs. Matching ignores case. A key that is not a known attribute matches everything.

    Raises:
        InputError: limit or offset is no number.
    """
    wanted = [(_keyword(key), value) for key, value in parameters if key.lower() not in CONTROL and value]
    control = {key.lower(): value for key, value in parameters if key.lower() in CONTROL}
    kept = [
        data for data in found if all(keyword is None or _matches(data, keyword, value) for keyword, value in wanted)
    ]
    start = _number(control, "offset", 0)
    return kept[start : start + min(_number(control, "limit", MAX_RESULTS), MAX_RESULTS)]


def _study(uid: str, members: Sequence[Series], root: str) -> Dataset:
    data = copied(members[0].summary, _STUDY)
    data.ModalitiesInStudy = sorted({str(one.summary.get("Modality", "")) for one in members} - {""})
    data.NumberOfStudyRelatedSeries = len(members)
    data.NumberOfStudyRelatedInstances = sum(len(one.sop_uids) for one in members)
    data.InstanceAvailability = "ONLINE"
    data.RetrieveURL = f"{root}/studies/{uid}"
    return data


def _keyword(key: str) -> str | None:
    """Turn `00100020` or `PatientID` into a keyword; None for what is not one, such as a path into a sequence."""
    if _HEX.fullmatch(key):
        return keyword_for_tag(int(key, 16)) or None
    return key if tag_for_keyword(key) is not None else None


def _matches(data: Dataset, keyword: str, pattern: str) -> bool:
    if keyword not in data:
        return keyword not in _known_keywords() or not pattern.strip("*")
    element = data[keyword]
    values = [str(value) for value in _values(element.value)] or [""]
    if element.VR in _RANGES and "-" in pattern:
        low, _, high = pattern.partition("-")
        return any(value and (not low or value >= low) and (not high or value <= high) for value in values)
    choices = re.split(r"[,\\]", pattern) if element.VR in ("UI", "CS") else [pattern]
    return any(_matches_text(value, choice, name=element.VR == "PN") for value in values for choice in choices)


def _known_keywords() -> frozenset[str]:
    return frozenset((*_STUDY, *_SERIES, *_INSTANCE, "ModalitiesInStudy"))


def _values(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, list | tuple) or type(value).__name__ == "MultiValue" else [value]


def _matches_text(value: str, pattern: str, *, name: bool) -> bool:
    text, wanted = value.casefold(), pattern.casefold().replace("[", "[[]")
    if name:
        text, wanted = text.replace("^", " "), wanted.replace("^", " ")
    return fnmatchcase(text, wanted)


def _number(control: Mapping[str, str], key: str, default: int) -> int:
    text = control.get(key, "")
    if not text:
        return default
    if not (text.isdecimal() and len(text) < 10):
        raise InputError(f"'{key}' is '{text[:20]}'; give a whole number from 0.")
    return int(text)


LARGE_BYTES = 1024  # Larger values are left out of the JSON and have a URL of their own

MEDIA_TYPES = {
    "1.2.840.10008.1.2.5": "image/dicom-rle",
    "1.2.840.10008.1.2.4.50": "image/jpeg",
    "1.2.840.10008.1.2.4.51": "image/jpeg",
    "1.2.840.10008.1.2.4.57": "image/jpeg",
    "1.2.840.10008.1.2.4.70": "image/jpeg",
    "1.2.840.10008.1.2.4.80": "image/jls",
    "1.2.840.10008.1.2.4.81": "image/jls",
    "1.2.840.10008.1.2.4.90": "image/jp2",
    "1.2.840.10008.1.2.4.91": "image/jp2",
}
"""Of compressed frames, by transfer syntax."""


def frame_type(syntax: str) -> str:
    """Return the content type of a frame; frames that are not compressed are sent as little endian."""
    if not UID(syntax).is_compressed or syntax == "1.2.840.10008.1.2.1.99":  # deflated: unpacked on reading
        return f"application/octet-stream; transfer-syntax={ExplicitVRLittleEndian}"
    return f"{MEDIA_TYPES.get(syntax, 'application/octet-stream')}; transfer-syntax={syntax}"


def read_frames(data: Dataset, numbers: Sequence[int]) -> list[bytes]:
    """Return frames of an instance, counted from 1, compressed as they are stored.

    Raises:
        NotFound: it has no pixels, or fewer frames.
    """
    count = int(data.get("NumberOfFrames") or 1)
    if "PixelData" not in data:
        raise NotFound(f"The instance {data.SOPInstanceUID} holds no pixels. Ask for one that does.")
    if any(not 1 <= number <= count for number in numbers):
        raise NotFound(f"The instance {data.SOPInstanceUID} has frames 1 to {count}, not {list(numbers)[:8]}.")
    syntax = data.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        frames = list(generate_pixel_data_frame(data.PixelData, count))
        return [frames[number - 1] for number in numbers]
    return [_native(data, number - 1, swap=syntax == ExplicitVRBigEndian) for number in numbers]


def _native(data: Dataset, number: int, *, swap: bool) -> bytes:
    samples = int(data.Rows) * int(data.Columns) * int(data.get("SamplesPerPixel", 1))
    if data.BitsAllocated == 1:  # frames of single bits follow one another without a gap
        first = number * samples
        packed = np.frombuffer(data.PixelData, np.uint8)[first // 8 : (first + samples + 7) // 8]
        bits = np.unpackbits(packed, bitorder="little")[first % 8 :][:samples]
        return np.packbits(bits, bitorder="little").tobytes()
    size = samples * int(data.BitsAllocated) // 8
    frame = data.PixelData[number * size : (number + 1) * size]
    return np.frombuffer(frame, np.uint16).byteswap().tobytes() if swap and data.BitsAllocated == 16 else frame


def header_json(data: Dataset, address: str) -> dict[str, Any]:
    """Return all but the pixels as DICOM JSON; large values become URLs below `address`."""
    return data.to_json_dict(
        bulk_data_threshold=LARGE_BYTES,
        bulk_data_element_handler=lambda element: f"{address}/bulkdata/{element.tag:08X}",
        suppress_invalid_tags=True,
    )


def bulk_value(data: Dataset, tag: str) -> bytes:
    """Return one value of an instance, by its tag in eight hexadecimal digits.

    Raises:
        InputError: that is no tag.
        NotFound: the instance has no such value of bytes.
    """
    try:
        number = int(tag, 16)
    except ValueError as error:
        raise InputError(f"'{tag[:20]}' is no tag; give eight hexadecimal digits such as 7FE00010.") from error
    value = data[number].value if number in data else None
    if not isinstance(value, bytes):
        raise NotFound(f"The instance {data.SOPInstanceUID} has no bytes under the tag {tag[:20]}.")
    return value


def render(data: Dataset) -> bytes:
    """Draw the first frame in the instance's own window, as JPEG.

    Raises:
        NotFound: it has no pixels, or they cannot be unpacked here.
    """
    try:
        pixels = data.pixel_array
    except (AttributeError, NotImplementedError, RuntimeError, ValueError) as error:
        raise NotFound(
            f"The instance {data.SOPInstanceUID} has no pixels that can be drawn. Fetch its frames."
        ) from error
    if int(data.get("NumberOfFrames") or 1) > 1:
        pixels = pixels[0]
    if data.get("SamplesPerPixel", 1) == 1:
        pixels = _grey(apply_voi_lut(apply_modality_lut(pixels, data), data))
        pixels = 255 - pixels if data.PhotometricInterpretation == "MONOCHROME1" else pixels
    stream = BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def _grey(pixels: np.ndarray) -> np.ndarray:
    low, high = float(pixels.min()), float(pixels.max())
    return (pixels - low) * (255.0 / (high - low or 1.0))
