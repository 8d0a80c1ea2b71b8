"""Studies on a DICOM server: listed by QIDO-RS, fetched when needed; labels are sent back as DICOM SEG.

A label counts as soon as it is saved here, whether the server answers or not. MONAI Label's own store sends first and
saves afterwards, so a server that is down loses the label; it also refuses empty masks, and caches the list of labels
for two hours.
"""

import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any
from uuid import uuid4

from dicomweb_client import DICOMwebClient
from dicomweb_client.session_utils import create_session_from_user_pass
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMwebClientX
from monailabel.datastore.local import DataModel, ImageLabelModel
from monailabel.datastore.utils.dicom import dicom_web_download_series
from pydicom.dataset import Dataset
from requests import RequestException

from slicecast.dicom.seg import seg_of_label
from slicecast.dicom.series import NO_IMAGES, Series, is_uid
from slicecast.errors import InputError, ResourceError
from slicecast.files import write_atomically
from slicecast.labelling.store.datastore import locked
from slicecast.labelling.store.delivery import Delivery
from slicecast.labelling.store.stow import DUPLICATE
from slicecast.labelling.store.studies import SERIES_EXTENSION, StudiesDatastore, series_info, series_names

logger = logging.getLogger(__name__)

LIST_S = 30.0  # Minimum seconds between two listings of the server's series
PAGE = 1000  # Series per QIDO-RS request
STOCK_FILTER = {"Modality": "CT"}  # MONAI Label's default, which hides every MR series; treated as no filter


@dataclass(slots=True)
class Remote:
    """The series on a DICOM server; the last list is used while the server does not answer."""

    client: DICOMwebClient  # of the server
    search_filter: dict[str, Any]  # attributes of the series to be annotated
    clock: Callable[[], float] = time.monotonic  # seconds
    _images: dict[str, Dataset] = field(default_factory=dict)
    _segs: set[str] = field(default_factory=set)
    _subjects: dict[str, str] = field(default_factory=dict)
    _seen_s: float = float("-inf")
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def images(self) -> dict[str, Dataset]:
        """Return the series to be annotated, by UID."""
        self._refresh()
        return dict(self._images)

    def labelled(self, *, without: Collection[str]) -> set[str]:
        """Return the UIDs of series of which the server holds a segmentation other than those."""
        self._refresh()
        return {self._subjects[uid] for uid in self._segs.difference(without)}

    def _refresh(self) -> None:
        with self._guard:
            if self.clock() - self._seen_s < LIST_S:
                return
            try:
                found = self._search(self.search_filter)
                self._images = {uid: data for uid, data in found.items() if data.get("Modality") not in NO_IMAGES}
                segs = self._search({"Modality": "SEG"})
                self._subjects.update((uid, self._subject(uid, data)) for uid, data in segs.items())
                self._segs = set(segs)
            except (RequestException, OSError, ValueError, KeyError) as error:
                logger.warning("The DICOM server cannot be asked for its series (%s); the last list is used", error)
            self._seen_s = self.clock()

    def _search(self, search_filter: dict[str, Any]) -> dict[str, Dataset]:
        found: dict[str, Dataset] = {}
        while True:
            page = self.client.search_for_series(search_filters=search_filter, limit=PAGE, offset=len(found))
            before = len(found)
            rows = [Dataset.from_json(row) for row in page]
            found.update((uid, row) for row in rows if is_uid(uid := str(row.SeriesInstanceUID)))
            if len(page) < PAGE or len(found) == before:
                return found

    def _subject(self, uid: str, data: Dataset) -> str:
        """Return the UID of the series that a segmentation refers to; asked once, as it never changes."""
        if uid in self._subjects:
            return self._subjects[uid]
        headers = self.client.retrieve_series_metadata(str(data.StudyInstanceUID), uid)
        about = Dataset.from_json(headers[0]).get("ReferencedSeriesSequence") or [Dataset()]
        return str(about[0].get("SeriesInstanceUID", ""))


class PacsDatastore(StudiesDatastore):
    """Images are series of a DICOM server, by UID; labels are kept in `cache` and sent there.

    Args:
        remote: the server.
        cache: folder for this server's series and labels.
    """

    def __init__(self, remote: Remote, cache: Path, **options: Any) -> None:
        self._remote = remote
        self._downloads = cache / "series"
        self._sent_file = cache / "sent.json"
        super().__init__(str(cache), **options)

    def name(self) -> str:
        """Return the server's address."""
        return str(self._remote.client.base_url)

    def image_id(self, name: str) -> str:
        """Return the id of an image, which is its series' UID."""
        return name

    def scan_path(self, name: str) -> str:
        """Return the folder of a series, fetched if need be; "" where there is none."""
        if name not in self.list_images():
            return ""
        self._fetch(name)
        return super().scan_path(name)

    def at_hand(self) -> list[str]:
        """Return the UIDs of the series that were fetched."""
        return [name for name in self.list_images() if (self._downloads / name).is_dir()]

    def why_unusable(self, image_id: str) -> str:
        """Return "": what lies on another server is not fetched to be examined."""
        return ""

    def examine(self) -> dict[str, str]:
        """Return nothing; see `why_unusable`."""
        return {}

    def get_image_uri(self, image_id: str) -> str:
        """Return a series as one file, fetched and converted if need be."""
        return super().get_image_uri(image_id) if self.scan_path(image_id) else ""

    @locked
    def list_images(self) -> list[str]:
        """Return the UIDs of the series to be annotated."""
        if set(self._remote.images()) - set(self._objects()):
            self.refresh()
        return list(self._objects())

    @locked
    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Return the images with a final label here, or a segmentation on the server."""
        here = set(super().get_labeled_images())
        known = self._remote.labelled(without=self.replaced_segs())
        return [name for name in self.list_images() if name in here or name in known]

    @locked
    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Return the images with neither."""
        labelled = set(self.get_labeled_images())
        return [name for name in self.list_images() if name not in labelled]

    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        """Return the pairs of image and final label, of labels saved here."""
        pairs = ((name, self.get_label_uri(name, "final")) for name in self.list_images())
        return [{"image": self.get_image_uri(name), "label": label} for name, label in pairs if label]

    def dicom_names(self, image_id: str) -> dict[str, str]:
        """Return the UIDs and patient data of a series that OHIF shows."""
        data = self._remote.images().get(image_id)
        return series_names(data) if data is not None else {}

    def _add_non_existing_images(self) -> int:
        self._init_from_datastore_file()
        remote = self._remote.images()
        new = [uid for uid in remote if uid not in self._datastore.objects]
        for uid in new:
            info = {"ts": int(self._clock().timestamp()), "name": uid, **series_info(remote[uid])}
            self._datastore.objects[uid] = ImageLabelModel(image=DataModel(info=info, ext=SERIES_EXTENSION))
        return len(new)

    def _image_exists(self, name: str, series: dict[str, Series]) -> bool:
        """Keep images with a label, and fetched ones, even if the server does not list them now."""
        present = self._remote.images()
        return not present or name in present or name in series or bool(self._datastore.objects[name].labels)

    def _fetch(self, uid: str) -> None:
        """Fetch a series, atomically; raises ResourceError if the server does not give it."""
        target = self._downloads / uid
        if target.is_dir():
            return
        part = self._downloads / f".{uuid4().hex}"
        try:
            dicom_web_download_series(
                None, uid, str(part), self._remote.client, settings.MONAI_LABEL_DICOMWEB_FETCH_BY_FRAME
            )
            part.rename(target)
        except (RequestException, OSError, ValueError, KeyError, IndexError) as error:
            if target.is_dir():  # another thread was faster
                return
            raise ResourceError(
                f"The series {uid} cannot be fetched from the DICOM server ({error}). Try again."
            ) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
        self.catalogue.dicom_series(now=True)

    def replaced_segs(self) -> frozenset[str]:
        """Return the UIDs of those SEG series of ours that are no label's current one: nobody is to see them listed.

        They stay on the server, because DICOMweb knows no way to take back what was stored.
        """
        return frozenset(uid for sent in self._sent().values() for uid in sent[:-1])

    @locked
    def _withdraw_segs(self, image_id: str, *, keep: str = "") -> None:
        """Note that of an image's SEGs `keep` is the current one, or none."""
        sent = self._sent()
        sent[image_id] = [*(uid for uid in sent.get(image_id, []) if uid != keep), keep]
        write_atomically(self._sent_file, json.dumps(sent).encode())

    def _sent(self) -> dict[str, list[str]]:
        """Return the UIDs of the SEG series that were sent of each image, the current one last; "" for none."""
        return json.loads(self._sent_file.read_text(encoding="utf-8")) if self._sent_file.is_file() else {}

    def _write_seg(self, delivery: Delivery) -> None:
        """Send a label to the server as DICOM SEG."""
        uid = delivery.facts["image_id"]
        self._fetch(uid)
        series = self.catalogue.of_image(uid)
        if series is None:
            raise ResourceError(f"The series {uid} is not here, though it was fetched. Empty the cache.")
        try:
            data = seg_of_label(delivery.label, series, delivery.facts["info"])
        except InputError as error:
            logger.error("The label of %s cannot be DICOM SEG, so it stays here only: %s", uid, error)
            return
        answer = self._remote.client.store_instances([data])
        for refused in answer.get("FailedSOPSequence") or ():  # some servers say it with 200 or 202
            if (reason := refused.get("FailureReason")) != DUPLICATE:
                raise ResourceError(f"The DICOM server has not stored the label of {uid}: failure reason {reason}.")
        self._withdraw_segs(uid, keep=str(data.SeriesInstanceUID))
        logger.info("The label of %s has arrived on the DICOM server", uid)


def open_pacs(url: str, cache: Path, **options: Any) -> PacsDatastore:
    """Open the studies of a DICOM server with MONAI Label's settings, without connecting yet."""
    user, password = settings.MONAI_LABEL_DICOMWEB_USERNAME, settings.MONAI_LABEL_DICOMWEB_PASSWORD
    session = create_session_from_user_pass(user, password) if user and password else None
    client = DICOMwebClientX(
        url=url,
        session=session,
        qido_url_prefix=settings.MONAI_LABEL_QIDO_PREFIX,
        wado_url_prefix=settings.MONAI_LABEL_WADO_PREFIX,
        stow_url_prefix=settings.MONAI_LABEL_STOW_PREFIX,
    )
    asked = settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER
    folder = cache / blake2b(url.rstrip("/").encode(), digest_size=16).hexdigest()
    return PacsDatastore(Remote(client, {} if asked == STOCK_FILTER else asked), folder, **options)
