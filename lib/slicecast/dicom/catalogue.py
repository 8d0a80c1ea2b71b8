"""All series of a studies folder: DICOM files anywhere below it, and volumes directly in it."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from slicecast.dicom.files import DicomTree
from slicecast.dicom.series import Found, Series
from slicecast.dicom.volumes import VolumeFiles, VolumeSeries
from slicecast.errors import UnknownImage

logger = logging.getLogger(__name__)

REFRESH_S = 2.0
"""The folder is looked through at most this often, unless it is asked for."""


@dataclass(slots=True)
class Catalogue:
    """What a folder holds, as DICOM. Safe between threads.

    Args:
        root: the studies.
        volumes: returns the volumes' files by image id.
        work: folder for links and copies; it is not looked through.
        skip: further folders that are not.
        follow_links: also read links that lead out of the folder.
        clock: seconds.
    """

    root: Path
    volumes: Callable[[], Mapping[str, Path]]
    work: Path
    skip: tuple[Path, ...] = ()
    follow_links: bool = False
    clock: Callable[[], float] = time.monotonic
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
        """Return the series of DICOM files, by UID; `now`, even if the folder was looked through a moment ago."""
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
        """Return the series of a study.

        Raises:
            UnknownImage: there is no such study.
        """
        found = [series for series in self.all() if series.summary.StudyInstanceUID == study_uid]
        if not found:
            raise UnknownImage(f"There is no study {study_uid[:64]} in the studies. Ask for the list again.")
        return found

    def find(self, series_uid: str) -> Series:
        """Return a series.

        Raises:
            UnknownImage: there is none of that UID.
        """
        known = self.dicom_series().get(series_uid)
        found = known or next((series for series in self.volume_series() if series.uid == series_uid), None)
        if found is None:
            raise UnknownImage(f"There is no series {series_uid[:64]} in the studies. Ask for the list again.")
        return found

    def instance(self, series_uid: str, sop_uid: str) -> Found:
        """Return an instance.

        Raises:
            UnknownImage: there is no such series or instance.
        """
        series = self.find(series_uid)
        if sop_uid not in series.sop_uids:
            raise UnknownImage(f"The series {series.uid} has no instance {sop_uid[:64]}. Ask for its instances again.")
        return Found(series, sop_uid)

    def of_image(self, image_id: str) -> Series | None:
        """Return the series of an image, by the image's name or the series' UID; None where there is none."""
        known = self.dicom_series().get(image_id)
        if known is not None:
            return known
        volumes = self.volumes()
        if image_id in volumes:  # by its name, without a look at all the others
            return next(iter(self._files.series({image_id: volumes[image_id]})), None)
        return next((series for series in self.volume_series() if series.uid == image_id), None)
