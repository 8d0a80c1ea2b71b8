"""All series of a studies folder: DICOM files anywhere below it, and volumes directly in it.

Headers are read once, and again when a file's time stamp or size changes.
"""

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import dcmread, misc
from pydicom.dataset import Dataset

from slicecast.dicom.series import NO_IMAGES, Instance, Series, VolumeFiles, VolumeSeries, copied, is_uid
from slicecast.errors import UnknownImage
from slicecast.volume.dicom import DAMAGED, require_small_unpacked

logger = logging.getLogger(__name__)

REFRESH_S = 2.0  # The folder is scanned at most this often, unless a caller asks for a scan
SERIES_TAGS = (
    *("SpecificCharacterSet", "PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyInstanceUID", "StudyDate", "StudyTime", "StudyDescription", "StudyID", "AccessionNumber"),
    *("ReferringPhysicianName", "SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription"),
    *("SeriesDate", "SeriesTime", "BodyPartExamined", "Manufacturer", "FrameOfReferenceUID"),
)
INSTANCE_TAGS = ("SOPInstanceUID", "SOPClassUID", "InstanceNumber", "Rows", "SamplesPerPixel")
SINGLE = ("InstanceNumber", "Modality")  # A file that has several of one cannot be put in order
REQUIRED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
ENDINGS = ("", ".dcm", ".dicom", ".ima", ".img")
"""Files with other endings are not opened, unless the ending is a number, as in some exports."""


@dataclass(frozen=True, slots=True, eq=False)
class FileSeries:
    """A series of DICOM files."""

    summary: Dataset  # attributes of its patient, study and series
    files: Mapping[str, Path]  # each instance's file, in order
    scan: bool  # whether it can be annotated
    links: Path  # where the series gets a folder of links of its own, if its files share one with other series

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
    """The DICOM series below a folder.

    Args:
        links: see `FileSeries`.
        skip: folders that are not scanned.
        follow_links: also read links that lead out of the folder.
    """

    def __init__(self, root: Path, links: Path, *, skip: Sequence[Path] = (), follow_links: bool = False) -> None:
        self._root, self._links = root, links
        self._skip = {path.resolve() for path in skip}
        self._follow = follow_links
        self._headers: dict[tuple[Path, int, int], Dataset | None] = {}

    def series(self) -> list[FileSeries]:
        """Scan the folder and return its series."""
        stamps = {_stamp(path): path for path in self._paths()}
        self._headers = {s: self._headers[s] if s in self._headers else _header(p) for s, p in stamps.items()}
        grouped: dict[str, list[tuple[Path, Dataset]]] = {}
        for (path, *_), header in self._headers.items():
            if header is not None:
                grouped.setdefault(str(header.SeriesInstanceUID), []).append((path, header))
        return [self._group(members) for _, members in sorted(grouped.items())]

    def _group(self, members: list[tuple[Path, Dataset]]) -> FileSeries:
        members.sort(key=lambda m: (int(m[1].get("InstanceNumber") or 0), str(m[1].SOPInstanceUID)))
        summary = copied(members[0][1], SERIES_TAGS)
        files = {str(header.SOPInstanceUID): path for path, header in reversed(members)}
        return FileSeries(summary, dict(reversed(files.items())), all(_is_scan(h) for _, h in members), self._links)

    def _paths(self) -> Iterator[Path]:
        seen: set[str] = set()
        for folder, folders, names in os.walk(self._root, followlinks=self._follow):
            here = Path(folder)
            real = {name: os.path.realpath(here / name) for name in folders}  # unlike resolve, no error for a loop
            folders[:] = sorted(
                name
                for name, path in real.items()
                if not name.startswith(".") and Path(path) not in self._skip and path not in seen
            )
            seen.update(real.values())
            for path in (here / name for name in sorted(names)):
                if _may_be_dicom(path) and (path.is_file() if self._follow else not path.is_symlink()):
                    yield path


def is_dicom(path: Path) -> bool:
    """Tell whether a file has a DICOM-like name and the DICOM preamble; False where it may not be read."""
    try:
        return _may_be_dicom(path) and path.is_file() and misc.is_dicom(path)
    except OSError as error:
        logger.warning("%s cannot be opened: %s", path.name, error.strerror)
        return False


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
        header.to_json_dict()  # pydicom parses values only now; one damaged file must not break every listing
    except DAMAGED as error:
        logger.warning("%s is not listed: it cannot be read as DICOM (%s)", path.name, error)
        return None
    twice = [keyword for keyword in SINGLE if keyword in header and header[keyword].VM > 1]
    if twice:
        logger.warning("%s is not listed: it has several values of %s", path.name, ", ".join(twice))
        return None
    missing = [keyword for keyword in REQUIRED if not header.get(keyword)]
    if missing:
        logger.warning("%s is not listed: it lacks %s", path.name, ", ".join(missing))
        return None
    if not all(is_uid(str(header[keyword].value)) for keyword in REQUIRED):
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
            extra.unlink(missing_ok=True)
    for name, path in wanted.items():
        if not (folder / name).exists():
            _link(path, folder / name)
    return folder


def _link(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source)
    except FileExistsError:
        return  # another request made it at the same moment
    except OSError:  # Windows without the right to make links
        shutil.copyfile(source, target)


@dataclass(slots=True)
class Catalogue:
    """Everything in a studies folder as DICOM series. Thread-safe."""

    root: Path
    volumes: Callable[[], Mapping[str, Path]]  # returns the volumes' files by image id
    work: Path  # folder for links and copies; it is not scanned
    skip: tuple[Path, ...] = ()  # further folders that are not scanned
    follow_links: bool = False  # also read links that lead out of the folder
    clock: Callable[[], float] = time.monotonic  # monotonic time in seconds
    _tree: DicomTree = field(init=False)
    _files: VolumeFiles = field(init=False)
    _dicom: dict[str, Series] = field(init=False, default_factory=dict)
    _seen_s: float = field(init=False, default=float("-inf"))
    _guard: threading.RLock = field(init=False, default_factory=threading.RLock)

    def __post_init__(self) -> None:
        skip = (self.work, *self.skip)
        self._tree = DicomTree(self.root, self.work / "series", skip=skip, follow_links=self.follow_links)
        self._files = VolumeFiles(self.work)

    def dicom_series(self, *, now: bool = False) -> dict[str, Series]:
        """Return the series of DICOM files, by UID; with `now`, scan even if the last scan is recent."""
        with self._guard:
            if now or self.clock() - self._seen_s >= REFRESH_S:
                self._dicom = {series.uid: series for series in self._tree.series()}
                self._seen_s = self.clock()
            return dict(self._dicom)

    def volume_series(self) -> list[VolumeSeries]:
        """Return the volumes as series."""
        return self._files.series(dict(self.volumes()))

    def all(self) -> list[Series]:
        """Return every series."""
        return [*self.dicom_series().values(), *self.volume_series()]

    def of_study(self, study_uid: str) -> list[Series]:
        """Return the series of a study; raises UnknownImage if there is no such study."""
        found = [series for series in self.all() if series.summary.StudyInstanceUID == study_uid]
        if not found:
            raise UnknownImage(f"There is no study {study_uid[:64]} in the studies. Ask for the list again.")
        return found

    def find(self, series_uid: str) -> Series:
        """Return a series; raises UnknownImage if there is none of that UID."""
        known = self.dicom_series().get(series_uid)
        found = known or next((series for series in self.volume_series() if series.uid == series_uid), None)
        if found is None:
            raise UnknownImage(f"There is no series {series_uid[:64]} in the studies. Ask for the list again.")
        return found

    def instance(self, series_uid: str, sop_uid: str) -> Instance:
        """Return an instance; raises UnknownImage if there is no such series or instance."""
        series = self.find(series_uid)
        if sop_uid not in series.sop_uids:
            raise UnknownImage(f"The series {series.uid} has no instance {sop_uid[:64]}. Ask for its instances again.")
        return Instance(series, sop_uid)

    def of_image(self, image_id: str) -> Series | None:
        """Return the series of an image, by the image's name or the series' UID; None where there is none."""
        known = self.dicom_series().get(image_id)
        if known is not None:
            return known
        volumes = self.volumes()
        if image_id in volumes:  # by name: no need to examine all the others
            return next(iter(self._files.series({image_id: volumes[image_id]})), None)
        return next((series for series in self.volume_series() if series.uid == image_id), None)
