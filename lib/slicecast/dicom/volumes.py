"""A NIfTI, NRRD or MHA file as a DICOM series; made when it is asked for, the same at every start."""

import hashlib
import json
import logging
import os
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from slicecast.dicom.convert import (
    Encoding,
    Names,
    common_header,
    encoding_of,
    series_volume,
    slice_header,
    slice_uid,
    stored_values,
)
from slicecast.dicom.uids import stable_uid
from slicecast.errors import UnknownImage, VolumeError
from slicecast.volume import Geometry, read_volume, write_volume
from slicecast.volume.reading import names_only

logger = logging.getLogger(__name__)

FACTS = "volumes.json"
"""What is known of each file, so that a list needs no voxels after a restart."""
DESCRIPTION = "dataset.json"
"""Says the modality of the files beside it, as in the Medical Segmentation Decathlon."""
_KEPT_SERIES = 2
"""Volumes whose pixels stay in memory."""
_VERSION = 2


@dataclass(frozen=True, eq=False)
class VolumeSeries:
    """A volume's file as a DICOM series.

    Args:
        path: the file.
        image_id: the image's name, which is the patient's name too.
        digest: of the file's content; another content has other UIDs.
        encoding: how its numbers are written.
        flipped_copies: folder for what `scan_path` has to write.
    """

    path: Path
    image_id: str
    digest: str
    encoding: Encoding
    flipped_copies: Path

    @cached_property
    def names(self) -> Names:
        """Whose the series is."""
        study, series = (stable_uid(word, self.image_id, self.digest) for word in ("study", "series"))
        return Names(study, series, self.image_id, self.path.name)

    @property
    def uid(self) -> str:
        """Its SeriesInstanceUID."""
        return self.names.series_uid

    @cached_property
    def summary(self) -> Dataset:
        """Attributes of its patient, study and series."""
        return common_header(self.encoding, self.names)

    @property
    def sop_uids(self) -> Sequence[str]:
        """Its instances, in order of k."""
        return [slice_uid(self.uid, number) for number in range(self.encoding.geometry.size_ijk[2])]

    def read(self, sop_uid: str, *, pixels: bool = True) -> Dataset:
        """Make one instance.

        Raises:
            UnknownImage: there is none of that UID.
        """
        number = self._number(sop_uid)
        data = slice_header(self.encoding, self.names, number)
        if pixels:
            data.PixelData = _pixels(self.path, self.digest, self.encoding)[number].tobytes()
            data["PixelData"].VR = "OW"
        return data

    def scan_path(self) -> Path:
        """Return the file itself, or a copy with its slices in the series' order."""
        if not self.encoding.flipped:
            return self.path
        copy = self.flipped_copies / f"{self.uid}.nrrd"
        if not copy.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            write_volume(copy, series_volume(read_volume(self.path), self.encoding), compress=False)
        return copy

    def _number(self, sop_uid: str) -> int:
        series, _, number = sop_uid.rpartition(".")
        count = self.encoding.geometry.size_ijk[2]
        if series != self.uid or not number.isdecimal() or not 1 <= int(number) <= count:
            raise UnknownImage(f"The series {self.uid} has no instance {sop_uid[:64]}. Ask for its instances again.")
        return int(number) - 1


@dataclass(slots=True)
class VolumeFiles:
    """The volumes of a folder as series.

    Args:
        work: folder for what is derived: facts about files, and copies.
    """

    work: Path
    _known: dict[str, Any] = field(default_factory=dict)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        try:
            saved = json.loads((self.work / FACTS).read_text(encoding="utf-8"))
            self._known = saved["files"] if saved["version"] == _VERSION else {}
        except (OSError, ValueError, KeyError, TypeError):
            self._known = {}

    def series(self, files: dict[str, Path]) -> list[VolumeSeries]:
        """Return a series for each file, by the image's name; files that are no volume are left out, with a warning."""
        with self._guard:
            before = len(self._known)
            facts = {image_id: (path, self._facts(path)) for image_id, path in sorted(files.items())}
            if len(self._known) != before:
                self._save()
        return [
            VolumeSeries(path, image_id, fact["digest"], _encoding(fact["encoding"]), self.work / "flipped")
            for image_id, (path, fact) in facts.items()
            if "encoding" in fact
        ]

    def _facts(self, path: Path) -> dict[str, Any]:
        state = path.stat()
        described = _described_modality(path.parent)
        key = f"{path}|{state.st_mtime_ns}|{state.st_size}|{described}"
        if key not in self._known:
            self._known[key] = _examine(path, described)
        return self._known[key]

    def _save(self) -> None:
        self.work.mkdir(parents=True, exist_ok=True)
        temporary = self.work / f".{FACTS}.{os.getpid()}"
        temporary.write_text(json.dumps({"version": _VERSION, "files": self._known}), encoding="utf-8")
        temporary.replace(self.work / FACTS)


def _examine(path: Path, modality: str | None) -> dict[str, Any]:
    try:
        encoding = encoding_of(read_volume(path), modality=modality)
    except VolumeError as error:
        logger.warning("%s is not served as DICOM: %s", path.name, error)
        return {"refused": str(error)}
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    return {"digest": digest, "encoding": asdict(encoding)}


def _encoding(fact: dict[str, Any]) -> Encoding:
    return Encoding(**{**fact, "geometry": Geometry(**fact["geometry"])})


def _described_modality(folder: Path) -> str | None:
    """Read the modality of a `dataset.json`, in the folder or beside it, if it names one for all."""
    for place in (folder, folder.parent):
        try:
            words = json.loads((place / DESCRIPTION).read_text(encoding="utf-8"))["modality"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        named = list(words.values()) if isinstance(words, dict) else [words]
        if len(named) == 1 and isinstance(named[0], str):
            word = named[0].upper()
            return "CT" if word == "CT" else "MR" if word.startswith(("MR", "FLAIR", "T1", "T2")) else None
    return None


@lru_cache(maxsize=_KEPT_SERIES)
def _pixels(path: Path, digest: str, encoding: Encoding) -> np.ndarray:
    with names_only(path):
        return stored_values(read_volume(path), encoding)
