"""A DICOM server that comes and goes: labels count at once, and arrive once it is back."""

import numpy as np
import pytest
from builders import phantom
from pydicom.dataset import Dataset
from requests import ConnectionError as Unreachable

from slicecast.dicom.catalogue import Catalogue
from slicecast.dicom.seg import referenced_series
from slicecast.errors import ResourceError, VolumeError
from slicecast.labelling.store.pacs import PacsDatastore, Remote
from slicecast.labelling.store.stow import DUPLICATE, NO_ROOM
from slicecast.volume import read_volume, write_mask, write_volume


class Server:
    """What of dicomweb-client's client is used, in this process; `up` says whether it answers."""

    base_url = "http://pacs/dicom-web"

    def __init__(self, series) -> None:
        self.series, self.up, self.stored = series, True, []
        self.reason = 0  # why what is sent is not stored; 0: it is

    def search_for_series(self, search_filters=None, limit=None, offset=0):
        self._require_up()
        found = list(self.stored) if (search_filters or {}).get("Modality") == "SEG" else [self.series.summary]
        return [self._row(data) for data in found][offset:]

    def retrieve_series(self, study, series):
        self._require_up()
        instances = [self.series.read(uid) for uid in self.series.sop_uids]
        for data in instances:
            data.preamble = bytes(128)  # as of what came over the network
        return instances

    def retrieve_series_metadata(self, study, series):
        self._require_up()
        return [seg.to_json_dict() for seg in self.stored if seg.SeriesInstanceUID == series]

    def store_instances(self, instances):
        self._require_up()
        answer, item = Dataset(), Dataset()
        if self.reason:
            item.FailureReason = self.reason
            answer.FailedSOPSequence = [item]
        else:
            self.stored += instances
        return answer

    def _require_up(self) -> None:
        if not self.up:
            raise Unreachable("connection refused")

    @staticmethod
    def _row(data: Dataset):
        row = Dataset()
        for word in ("StudyInstanceUID", "SeriesInstanceUID", "Modality", "PatientID"):
            row[word] = data[word]
        return row.to_json_dict()


@pytest.fixture
def server(tmp_path):
    file = write_volume(tmp_path / "case.nii.gz", phantom().volume)
    return Server(Catalogue(tmp_path, lambda: {"case": file}, tmp_path / "facts").volume_series()[0])


@pytest.fixture
def opened(server, tmp_path):
    stores = []

    def make(now=lambda: 0.0):
        stores.append(PacsDatastore(Remote(server, {}, clock=now), tmp_path / "cache"))
        return stores[-1]

    yield make
    for store in stores:
        store.deliveries.close()


def submit(store, tmp_path, empty=False):
    uid = store.list_images()[0]
    volume = read_volume(store.scan_path(uid))
    label = write_mask(tmp_path / "label.nrrd", (volume.array > 70) & (not empty), volume.geometry)
    store.save_label(uid, str(label), "final", {"label_info": [{"name": "spleen", "idx": 1}]})
    return uid


def test_series_are_listed_and_fetched(server, opened):
    store = opened()
    (uid,) = store.list_images()
    assert uid == server.series.uid and store.dicom_names(uid)["Modality"] == "MR"
    assert np.array_equal(read_volume(store.scan_path(uid)).array, phantom().volume.array)
    assert store.scan_path("1.2.3") == ""


@pytest.mark.parametrize("empty", [False, True])
def test_a_label_waits_for_the_server(server, opened, tmp_path, empty):
    store = opened()
    store.scan_path(store.list_images()[0])
    server.up = False
    uid = submit(store, tmp_path, empty)
    assert store.status()["completed"] == 1 and store.get_unlabeled_images() == []
    assert store.deliveries.deliver_all() == 1 and server.stored == []
    store.deliveries.close()
    server.up = True
    again = opened()
    assert again.deliveries.deliver_all() == 0
    assert {referenced_series(seg) for seg in server.stored} == {uid}
    assert bool(server.stored[0].pixel_array.any()) is not empty


def test_a_label_that_the_server_does_not_store_waits(server, opened, tmp_path):
    """It answers, and says in the answer that it has refused the object."""
    server.reason = NO_ROOM
    store = opened()
    submit(store, tmp_path)
    assert store.deliveries.deliver_all() == 1 and server.stored == []
    server.reason = DUPLICATE  # it has it already
    assert store.deliveries.deliver_all() == 0


def test_one_seg_of_a_label_is_current(server, opened, tmp_path):
    store, current = opened(iter(range(0, 10**6, 100)).__next__), []
    for empty in (False, True, False):
        uid = submit(store, tmp_path, empty)
        store.deliveries.deliver_all()
        current.append(server.stored[-1].SeriesInstanceUID)
        assert store.replaced_segs() == {seg.SeriesInstanceUID for seg in server.stored} - {current[-1]}
    assert current[0] == current[2] != current[1], "the same label is the same SEG"
    store.deliveries.close()
    again = opened(iter(range(0, 10**6, 100)).__next__)
    assert again.replaced_segs() == {current[1]} and again.get_labeled_images() == [uid]
    again.remove_label(uid, "final")
    assert again.replaced_segs() == set(current) and again.get_labeled_images() == []


def test_a_label_made_elsewhere_counts(server, opened, tmp_path):
    first = opened()
    submit(first, tmp_path)
    first.deliveries.deliver_all()
    elsewhere = PacsDatastore(Remote(server, {}), tmp_path / "other")
    assert elsewhere.get_labeled_images() == [server.series.uid]
    elsewhere.deliveries.close()


def test_without_the_server(server, opened):
    opened().list_images()
    server.up = False
    store = opened(now=lambda: 99.0)
    assert store.list_images() == [server.series.uid], "the last list is kept"
    with pytest.raises(ResourceError, match="cannot be fetched"):
        store._fetch(server.series.uid)


def test_a_label_is_kept_though_its_image_cannot_be_had(server, opened, tmp_path):
    store = opened()
    (uid,) = store.list_images()
    server.up = False
    label = write_mask(tmp_path / "label.nrrd", phantom().volume.array > 70, phantom().volume.geometry)
    store.save_label(uid, str(label), "final", {})
    assert store.status()["completed"] == 1
    (tmp_path / "label.nrrd").write_bytes(b"garbage")
    with pytest.raises(VolumeError):
        store.save_label(uid, str(label), "final", {})
