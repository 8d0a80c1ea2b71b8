"""The studies folder as MONAI Label sees it: files of one volume each, and DICOM series.

A DICOM series is an image whose id is its SeriesInstanceUID, which is how OHIF names images. A volume's id
is its file's name; it is also found under the UID of the series as which it is served, and then its slices are in the
order in which a viewer shows them (see `slicecast.dicom.series`).
"""

import filecmp
import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

from monailabel.datastore.local import DataModel, ImageLabelModel
from monailabel.interfaces.datastore import DefaultLabelTag
from pydicom import dcmread
from pydicom.dataset import Dataset

from slicecast.dicom.catalogue import Catalogue
from slicecast.dicom.seg import named_values, referenced_series, seg_of_label
from slicecast.dicom.series import Series
from slicecast.errors import InputError, ResourceError, UnknownImage, VolumeError
from slicecast.files import write_atomically
from slicecast.labelling.store.datastore import SafeDatastore, changing, locked, safe_tag
from slicecast.labelling.store.delivery import Delivery, DeliveryQueue
from slicecast.labelling.store.labels import checked_file, with_names
from slicecast.labelling.store.stow import Outcome, SaveLabel, Store
from slicecast.labelling.store.unusable import ScanChecks
from slicecast.labelling.store.uploads import is_upload
from slicecast.volume import Geometry, read_volume, write_volume
from slicecast.volume.dicom import DAMAGED

logger = logging.getLogger(__name__)

WORK = ".slicecast"  # Folder in the studies for derived files; it may be deleted while the server is stopped
SEGMENTATIONS = "segmentations"  # Folder in the studies for labels as DICOM SEG
REPLACED = ".replaced"  # Folder in that one for those that are no longer listed
SERIES_EXTENSION = ""  # Extension, in MONAI Label's index, of an image that is a DICOM series

_UID = re.compile(r"[0-9]+(\.[0-9]+){2,}")


class StudiesDatastore(SafeDatastore):
    """A `SafeDatastore` that lists DICOM series too; its `catalogue` describes every image as a DICOM series.

    Args:
        datastore_path: the studies.
        follow_links: list links that lead out of the studies' folder.
        labels: names of a label's values from 1, where the label itself has none; written down when it is first seen.
    """

    def __init__(
        self, datastore_path: str, *, follow_links: bool = False, labels: Sequence[str] = ("object",), **options: Any
    ) -> None:
        root = Path(datastore_path)
        self._labels = tuple(labels)
        self._work = root / WORK
        self.catalogue = Catalogue(
            root, self._volume_files, self._work, skip=(root / "labels",), follow_links=follow_links
        )
        self._checks = ScanChecks(self._examined_path)
        super().__init__(datastore_path, follow_links=follow_links, **options)
        with self.alone():  # it clears away what a kill left, and no process may be at it now
            self.deliveries = DeliveryQueue(self._work / "outbox", self._deliver)
        if self.deliveries.waiting():
            self.deliveries.start()

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Check and save a label on its image's own grid; a final one becomes a DICOM SEG too, in the background.

        Raises:
            UnknownImage: there is no such image.
            VolumeError, GeometryError: the file cannot be this image's label (see `checking`); nothing has changed.
        """
        own = self.image_id(image_id)
        if own not in self._objects():
            raise UnknownImage(f"There is no image '{image_id}' to label. Ask for the list of images again.")
        safe_tag(label_tag)
        with tempfile.TemporaryDirectory() as folder:
            file = checked_file(
                Path(label_filename), self._grid(own), info=label_info or {}, labels=self._labels, folder=Path(folder)
            )
            info = with_names(label_info or {}, file, labels=self._labels)
            with self.alone():  # a delivery that finds its job finds the label too, also in another process
                final = label_tag == DefaultLabelTag.FINAL
                job = self.deliveries.put(file, {"image_id": own, "info": info}) if final else None
                try:
                    saved = super().save_label(own, str(file), label_tag, info)
                except BaseException:
                    if job is not None:  # the client is told of the failure, so nothing may be delivered
                        self.deliveries.discard(job)
                    raise
        if job is not None:
            self.deliveries.start()
        return saved

    def store_instances(self, parts: Sequence[bytes], *, save: SaveLabel, study: str = "") -> Outcome:
        """Store DICOM SEG objects; each becomes the final label of the image that it refers to, through `save`."""
        folder = self._work.parent / SEGMENTATIONS
        self.refuse_way_out(folder)
        outcome = Store(folder, self._known_series, save).take(parts, study=study)
        self.catalogue.dicom_series(now=True)
        return outcome

    @locked
    def image_id(self, name: str) -> str:
        """Return the id of an image that is named by its id or by the UID of its series."""
        if name in self._datastore.objects or not _UID.fullmatch(name):
            return name
        series = self.catalogue.of_image(name)
        return series.image_id or name if series else name

    def scan_path(self, name: str) -> str:
        """Return the file or folder of an image, slices in the order that the name implies; "" where there is none."""
        own = self.image_id(name)
        known = own in self._objects()
        if known and own == name and not self._is_series(own):
            return super().get_image_uri(name)
        series = self.catalogue.of_image(name) if known else None
        return str(series.scan_path()) if series else ""

    def get_image_uri(self, image_id: str) -> str:
        """Return an image's file; that of a DICOM series is written first."""
        own = self.image_id(image_id)
        if not self._is_series(own):
            return super().get_image_uri(own)
        series = self.catalogue.of_image(own)
        return str(self._volume_of(series)) if series else ""

    @locked
    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """Return what is known of an image."""
        info = super().get_image_info(self.image_id(image_id))
        if self._is_series(self.image_id(image_id)):
            info.pop("path", None)
        return info

    @locked
    def list_images(self) -> list[str]:
        """Return the ids of all images there are now."""
        present = {uid for uid, series in self.catalogue.dicom_series().items() if series.image_id}
        if present != {name for name in self._objects() if self._is_series(name)} or self._is_file_gone():
            self.refresh()
        return super().list_images()

    def _is_file_gone(self) -> bool:
        folder = Path(self._datastore.image_path())
        present = {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set()
        files = (self._filename(name, record.image.ext) for name, record in self._objects().items() if record.image.ext)
        return any(file not in present for file in files)

    def at_hand(self) -> list[str]:
        """Return the ids of the images that lie on this machine."""
        return self.list_images()

    def why_unusable(self, image_id: str) -> str:
        """Return why an image cannot be segmented, by its headers; "" where it can."""
        return self._checks.why_not(image_id)

    def examine(self) -> dict[str, str]:
        """Examine the headers of all images; return the reason of each that cannot be segmented."""
        return self._checks.examine(self.list_images())

    def unusable(self) -> dict[str, str]:
        """Return the reasons found so far, by image."""
        return self._checks.known(self._objects())

    def _examined_path(self, image_id: str) -> Path:
        path = self.scan_path(image_id)
        return Path(path) if path else Path(self._datastore.image_path()) / image_id

    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        """Return the pairs of image and final label."""
        tag = DefaultLabelTag.FINAL.value
        return [
            {"image": self.get_image_uri(name), "label": self.get_label_uri(name, tag)}
            for name in self.get_labeled_images()
        ]

    @changing
    def remove_image(self, image_id: str) -> None:
        """Remove an image; a DICOM series is refused, because its files exist only once."""
        if self._is_series(self.image_id(image_id)):
            raise InputError(f"The DICOM series {image_id} stays. Move its files out of the studies.")
        super().remove_image(image_id)

    def dicom_names(self, image_id: str) -> dict[str, str]:
        """Return an image's UIDs and patient data, with which OHIF opens it; empty where it is no DICOM."""
        series = self.catalogue.of_image(image_id)
        return series_names(series.summary) if series else {}

    def _grid(self, own: str) -> Geometry | None:
        """Return an image's own grid; None where a DICOM server does not give the image now.

        Such a label is kept, because the work is done. If it lies on another grid, it never becomes a DICOM SEG.

        Raises:
            VolumeError: the image cannot be read.
        """
        try:
            path = Path(self.scan_path(own))
        except ResourceError as error:
            logger.warning("The label of %s is not compared with its image: %s", own, error)
            return None
        try:
            return _geometry(path, path.stat().st_mtime_ns)
        except VolumeError as error:
            raise VolumeError(f"The image '{own}' cannot be read, so no label can be checked against it.") from error

    def _known_series(self, uid: str) -> Series | None:
        return self.catalogue.of_image(uid) if uid else None

    @changing
    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Remove a label; it is kept as a version, and its DICOM SEG is no longer listed."""
        super().remove_label(self.image_id(label_id), label_tag)
        if label_tag == DefaultLabelTag.FINAL:
            self._withdraw_segs(self.image_id(label_id))

    @changing
    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        """Change a label's record; a final one that has other names gets another DICOM SEG."""
        before = (self.get_label_info(label_id, label_tag) or {}).get("label_info")
        renamed = label_tag == DefaultLabelTag.FINAL and info.get("label_info", before) != before
        super().update_label_info(label_id, label_tag, {**info, "dicom_seg": ""} if renamed else info)
        if renamed:  # also one that came as DICOM SEG
            told = self.get_label_info(label_id, label_tag)
            self.deliveries.put(Path(self.get_label_uri(label_id, label_tag)), {"image_id": label_id, "info": told})
            self.deliveries.start()

    @changing
    def _put_back(self, image_id: str, tag: str, before: DataModel | None, spare: Path | None) -> None:
        super()._put_back(image_id, tag, before, spare)
        file = self.get_label_uri(image_id, tag)
        if file and tag == DefaultLabelTag.FINAL:  # the SEG of the one that failed may be there already
            try:
                self.deliveries.put(Path(file), {"image_id": image_id, "info": before.info if before else {}})
            except OSError as error:  # a full disk, where that SEG could not be written either
                logger.warning("The SEG of '%s' is not looked at: %s", image_id, error)
            self.deliveries.start()
        elif tag == DefaultLabelTag.FINAL:
            self._withdraw_segs(image_id)

    def _deliver(self, delivery: Delivery) -> None:
        """Deliver a label if it is its image's final one: not one that was replaced, or never saved."""
        with self.alone():  # not between a job and its label
            file = self.get_label_uri(delivery.facts["image_id"], DefaultLabelTag.FINAL.value)
            current = bool(file) and filecmp.cmp(file, delivery.label, shallow=False)
        if current:
            self._write_seg(delivery)

    def _withdraw_segs(self, image_id: str, *, keep: str = "") -> None:
        """List no DICOM SEG of an image but one; the others are put aside."""
        series, folder = self.catalogue.of_image(image_id), self._work.parent / SEGMENTATIONS
        for file in folder.glob("*.dcm") if series else ():
            with suppress(FileNotFoundError):  # a delivery may put it aside at the same moment
                if file.stem != keep and series is not None and _refers_to(file, series.uid):
                    (folder / REPLACED).mkdir(exist_ok=True)
                    file.replace(folder / REPLACED / file.name)
        self.catalogue.dicom_series(now=True)

    def _write_seg(self, delivery: Delivery) -> None:
        """Write a label as DICOM SEG. One that cannot become a SEG is skipped; the label itself is saved."""
        image_id, own = delivery.facts["image_id"], delivery.facts["info"].get("dicom_seg")
        if own:  # it came as one
            self._withdraw_segs(image_id, keep=own)
            return
        series = self.catalogue.of_image(image_id)
        if series is None:
            return
        try:
            data = seg_of_label(delivery.label, series, delivery.facts["info"])
        except InputError as error:
            logger.warning("The label of %s cannot be DICOM SEG: %s", series.image_id, error)
            return
        folder = self._work.parent / SEGMENTATIONS
        self.refuse_way_out(folder)
        folder.mkdir(exist_ok=True)
        stream = BytesIO()
        data.save_as(stream, write_like_original=False)
        write_atomically(folder / f"{data.SOPInstanceUID}.dcm", stream.getvalue())
        self._withdraw_segs(image_id, keep=str(data.SOPInstanceUID))

    def _objects(self) -> dict[str, Any]:
        return dict(self._datastore.objects)

    def _is_series(self, image_id: str) -> bool:
        record = self._datastore.objects.get(image_id)
        return record is not None and record.image.ext == SERIES_EXTENSION

    def _volume_files(self) -> Mapping[str, Path]:
        return _VolumeFiles(self)

    def _volume_of(self, series: Series) -> Path:
        """Write a series as one file, which Slicer downloads; on the same grid, so that indices agree."""
        target = self._work / "volumes" / f"{series.uid}.nrrd"
        source = series.scan_path()
        newest = max((path.stat().st_mtime_ns for path in source.iterdir()), default=0)
        if not target.is_file() or target.stat().st_mtime_ns < newest:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_volume(target, read_volume(source), compress=False)
        return target

    def _reconcile_datastore(self) -> None:
        self.catalogue.dicom_series()  # looks through the folders, for which nobody else needs to wait
        super()._reconcile_datastore()

    def _add_non_existing_images(self) -> int:
        added = super()._add_non_existing_images()
        for uid, series in self.catalogue.dicom_series().items():
            if series.image_id and uid not in self._datastore.objects:
                info = {"ts": int(self._clock().timestamp()), "name": uid, **series_info(series.summary)}
                self._datastore.objects[uid] = ImageLabelModel(image=DataModel(info=info, ext=SERIES_EXTENSION))
                added += 1
        return added

    def _add_non_existing_labels(self, tag: str) -> int:
        """Add labels that lie in a tag's folder; one without names gets those of `labels`, which stay its own."""
        added = super()._add_non_existing_labels(tag)
        named = [{"name": name, "idx": value} for value, name in enumerate(self._labels, start=1)]
        for record in self._objects().values() if named else ():
            label = record.labels.get(tag)
            if label is not None and not named_values(label.info):
                label.info["label_info"] = named
                added += 1
        return added

    def _remove_non_existing(self) -> int:
        self._init_from_datastore_file()
        series = self.catalogue.dicom_series()
        gone = [name for name in self._objects() if not self._image_exists(name, series)]
        for name in gone:
            del self._datastore.objects[name]
        lost = [
            (record, tag)
            for name, record in self._objects().items()
            for tag, label in list(record.labels.items())
            if not (Path(self._datastore.label_path(tag)) / self._filename(name, label.ext)).exists()
        ]
        for record, tag in lost:
            del record.labels[tag]
        return len(gone) + len(lost)

    def _image_exists(self, name: str, series: dict[str, Series]) -> bool:
        if self._is_series(name):
            return name in series and series[name].image_id is not None
        extension = self._datastore.objects[name].image.ext
        return (Path(self._datastore.image_path()) / self._filename(name, extension)).exists()


@lru_cache(maxsize=256)
def _geometry(path: Path, changed_ns: int) -> Geometry:
    """Return the grid of a file or folder, read once for each time that it changed."""
    return read_volume(path).geometry


class _VolumeFiles(Mapping[str, Path]):
    """The files of a store's volumes by image id, looked up one by one."""

    def __init__(self, store: "StudiesDatastore") -> None:
        self._store = store

    def __getitem__(self, image_id: str) -> Path:
        extension = self._store._datastore.objects[image_id].image.ext
        if extension == SERIES_EXTENSION:
            raise KeyError(image_id)
        return Path(self._store._datastore.image_path()) / self._store._filename(image_id, extension)

    def __iter__(self) -> Iterator[str]:
        return (name for name, record in self._store._objects().items() if record.image.ext != SERIES_EXTENSION)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _refers_to(file: Path, series_uid: str) -> bool:
    try:
        return referenced_series(dcmread(file, specific_tags=["ReferencedSeriesSequence"])) == series_uid
    except DAMAGED:
        return False


def series_names(summary: Dataset) -> dict[str, str]:
    """Return the UIDs and patient data of a series that OHIF shows."""
    words = ("SeriesInstanceUID", "StudyInstanceUID", "Modality", "PatientID", "StudyDate", "StudyTime")
    return {word: str(summary.get(word, "")) for word in words}


def series_info(summary: Dataset) -> dict[str, str]:
    """Return what the index of images holds of a series."""
    return {**series_names(summary), "SeriesDescription": str(summary.get("SeriesDescription", ""))}


@dataclass(frozen=True, slots=True)
class FoundImage:
    """The file or DICOM folder of a request, and its id if it belongs to the studies."""

    path: Path
    id: str | None


def find_image(request: Mapping[str, Any], datastore: StudiesDatastore, *, sessions: Path | None = None) -> FoundImage:
    """Find the image that a request names.

    Raises:
        UnknownImage: no image is named, or there is none of that id.
        InputError: a path is named.
    """
    name = request.get("image")
    if not isinstance(name, str) or not name:
        raise UnknownImage("The request names no image. Give an image's id, or a session that has not expired.")
    if "/" in name or "\\" in name:
        return FoundImage(_uploaded(name, sessions), None)
    path, own = datastore.scan_path(name), datastore.image_id(name)
    if not path:
        raise UnknownImage(f"There is no image '{name}' in the studies.{_hint(name, datastore)}")
    return FoundImage(Path(path), own)


def _uploaded(name: str, sessions: Path | None) -> Path:
    path = Path(name)
    in_session = sessions is not None and path.resolve().is_relative_to(sessions.resolve())
    if path.exists() and (in_session or is_upload(path)):
        return path
    raise InputError(f"The image '{name}' is a path. Give the id of an image of the studies, or upload the file.")


def _hint(name: str, datastore: StudiesDatastore) -> str:
    near = get_close_matches(name, datastore.list_images(), n=1)
    return f" Did you mean '{near[0]}'?" if near else " Ask for the list of images again."
