"""The DICOM series in a folder tree: found by reading headers, kept up to date by the files' time stamps."""

import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from slicecast.dicom.series import NO_IMAGES
from slicecast.dicom.uids import is_uid
from slicecast.volume.dicom import DAMAGED, require_small_unpacked

logger = logging.getLogger(__name__)

SERIES_TAGS = (
    *("SpecificCharacterSet", "PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyInstanceUID", "StudyDate", "StudyTime", "StudyDescription", "StudyID", "AccessionNumber"),
    *("ReferringPhysicianName", "SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription"),
    *("SeriesDate", "SeriesTime", "BodyPartExamined", "Manufacturer", "FrameOfReferenceUID"),
)
INSTANCE_TAGS = ("SOPInstanceUID", "SOPClassUID", "InstanceNumber", "Rows", "SamplesPerPixel")
REQUIRED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
ENDINGS = ("", ".dcm", ".dicom", ".ima", ".img")
"""A file with another ending is not looked into, unless its ending is a number, as in some exports."""

_MAGIC_PLACE, _MAGIC = 128, b"DICM"


@dataclass(frozen=True, slots=True, eq=False)
class FileSeries:
    """A series of DICOM files.

    Args:
        summary: attributes of its patient, study and series.
        files: each instance's file, in order.
        scan: it is something to annotate.
        links: folder in which the series gets a folder of its own, should it share one with others.
    """

    summary: Dataset
    files: Mapping[str, Path]
    scan: bool
    links: Path

    @property
    def uid(self) -> str:
        """Its SeriesInstanceUID."""
        return str(self.summary.SeriesInstanceUID)

    @property
    def image_id(self) -> str | None:
        """Its UID, as OHIF names images; None where it is no scan."""
        return self.uid if self.scan else None

    @property
    def sop_uids(self) -> Sequence[str]:
        """Its instances, by number."""
        return list(self.files)

    def read(self, sop_uid: str, *, pixels: bool = True) -> Dataset:
        """Read one instance."""
        return dcmread(self.files[sop_uid], stop_before_pixels=not pixels)

    def scan_path(self) -> Path:
        """Return the series' folder, or make one of links where its own holds other series too."""
        folders = {file.parent for file in self.files.values()}
        own = folders.pop()
        if not folders and {path.name for path in own.iterdir() if is_dicom(path)} == {
            file.name for file in self.files.values()
        }:
            return own
        return _linked(self.files, self.links / self.uid)


class DicomTree:
    """The DICOM series below a folder; headers are read once, and again when a file changes.

    Args:
        root: the folder.
        links: see `FileSeries`.
        skip: folders that are not looked into.
        follow_links: also read links that lead out of the folder.
    """

    def __init__(self, root: Path, links: Path, *, skip: Sequence[Path] = (), follow_links: bool = False) -> None:
        self._root, self._links = root, links
        self._skip = {path.resolve() for path in skip}
        self._follow = follow_links
        self._headers: dict[tuple[Path, int, int], Dataset | None] = {}

    def series(self) -> list[FileSeries]:
        """Return the series there are now."""
        stamps = {_stamp(path): path for path in self._paths()}
        self._headers = {s: self._headers[s] if s in self._headers else _header(p) for s, p in stamps.items()}
        grouped: dict[str, list[tuple[Path, Dataset]]] = {}
        for (path, *_), header in self._headers.items():
            if header is not None:
                grouped.setdefault(str(header.SeriesInstanceUID), []).append((path, header))
        return [self._group(members) for _, members in sorted(grouped.items())]

    def _group(self, members: list[tuple[Path, Dataset]]) -> FileSeries:
        members.sort(key=lambda m: (int(m[1].get("InstanceNumber") or 0), str(m[1].SOPInstanceUID)))
        summary = Dataset()
        for word in SERIES_TAGS:
            if word in members[0][1]:
                summary[word] = members[0][1][word]
        files = {str(header.SOPInstanceUID): path for path, header in reversed(members)}
        return FileSeries(summary, dict(reversed(files.items())), all(_is_scan(h) for _, h in members), self._links)

    def _paths(self) -> Iterator[Path]:
        for folder, folders, names in os.walk(self._root, followlinks=self._follow):
            here = Path(folder)
            kept = [name for name in folders if not name.startswith(".") and (here / name).resolve() not in self._skip]
            folders[:] = sorted(kept)
            for path in (here / name for name in sorted(names)):
                if _may_be_dicom(path) and (self._follow or not path.is_symlink()):
                    yield path


def is_dicom(path: Path) -> bool:
    """Tell whether a file says that it is DICOM."""
    if not (_may_be_dicom(path) and path.is_file()):
        return False
    with path.open("rb") as stream:
        stream.seek(_MAGIC_PLACE)
        return stream.read(len(_MAGIC)) == _MAGIC


def _may_be_dicom(path: Path) -> bool:
    ending = path.suffix.lower()
    return not path.name.startswith(".") and (ending in ENDINGS or ending[1:].isdecimal())


def _stamp(path: Path) -> tuple[Path, int, int]:
    state = path.stat()
    return path, state.st_mtime_ns, state.st_size


def _header(path: Path) -> Dataset | None:
    """Read the attributes that lists need; None where the file is no usable DICOM."""
    if not is_dicom(path):
        return None
    try:
        with path.open("rb") as stream:
            require_small_unpacked(stream)
        header = dcmread(path, stop_before_pixels=True, specific_tags=[*SERIES_TAGS, *INSTANCE_TAGS])
        header.to_json_dict()  # pydicom looks at values only now; one damaged file must not spoil every list
    except DAMAGED as error:
        logger.warning("%s is not listed: it cannot be read as DICOM (%s)", path.name, error)
        return None
    missing = [word for word in REQUIRED if not header.get(word)]
    if missing:
        logger.warning("%s is not listed: it lacks %s", path.name, ", ".join(missing))
        return None
    if not all(is_uid(str(header[word].value)) for word in REQUIRED):
        logger.warning("%s is not listed: its identifiers are no UIDs", path.name)
        return None
    return header


def _is_scan(header: Dataset) -> bool:
    return (
        bool(header.get("Rows")) and header.get("SamplesPerPixel", 1) == 1 and header.get("Modality") not in NO_IMAGES
    )


def _linked(files: Mapping[str, Path], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {f"{number:06}.dcm": path.resolve() for number, path in enumerate(files.values())}
    for extra in folder.iterdir():
        if wanted.get(extra.name) != extra.resolve():
            extra.unlink()
    for name, path in wanted.items():
        if not (folder / name).exists():
            _link(path, folder / name)
    return folder


def _link(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source)
    except OSError:  # Windows without the right to make links
        shutil.copyfile(source, target)
