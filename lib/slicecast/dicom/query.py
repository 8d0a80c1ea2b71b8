"""QIDO-RS search (DICOM PS3.18, 8.3 and 10.6): matching, paging, and the attributes of a result."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset

from slicecast.dicom.series import Series
from slicecast.errors import InputError

CONTROL = ("limit", "offset", "fuzzymatching", "includefield")
"""Parameters that are no attributes."""
MAX_RESULTS = 5000
"""Results in one response; `offset` gets the rest."""

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
        data = _copy(one.summary, (*_STUDY, *_SERIES, "BodyPartExamined"))
        data.NumberOfSeriesRelatedInstances = len(one.sop_uids)
        data.RetrieveURL = f"{root}/studies/{data.StudyInstanceUID}/series/{one.uid}"
        found.append(data)
    return found


def instances_of(series: Iterable[Series], root: str) -> Iterator[Dataset]:
    """Describe the instances of series; reads their headers."""
    for one in series:
        for uid in one.sop_uids:
            data = _copy(one.summary, (*_STUDY, *_SERIES))
            data.update(_copy(one.read(uid, pixels=False), _INSTANCE))
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
    data = _copy(members[0].summary, _STUDY)
    data.ModalitiesInStudy = sorted({str(one.summary.get("Modality", "")) for one in members} - {""})
    data.NumberOfStudyRelatedSeries = len(members)
    data.NumberOfStudyRelatedInstances = sum(len(one.sop_uids) for one in members)
    data.InstanceAvailability = "ONLINE"
    data.RetrieveURL = f"{root}/studies/{uid}"
    return data


def _copy(source: Dataset, keywords: Iterable[str]) -> Dataset:
    data = Dataset()
    for keyword in keywords:
        if keyword in source:
            data[keyword] = source[keyword]
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
