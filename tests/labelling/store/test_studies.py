"""A folder of DICOM series and volumes: ids, grids, labels that become DICOM SEG, and failures that lose nothing."""

import errno
import signal
import subprocess
import sys
import time
from io import BytesIO

import numpy as np
import pydicom
import pytest
from builders import phantom, stored_as
from labelserver import write_studies

from slicecast.dicom.catalogue import Catalogue
from slicecast.dicom.seg import SegNames, write_seg
from slicecast.errors import GeometryError, InputError
from slicecast.labelling.store.studies import StudiesDatastore
from slicecast.volume import Geometry, read_volume, write_mask, write_volume

INFO = {"label_info": [{"name": "spleen", "idx": 1}]}


def write_dicom(volume, folder, work):
    """Write a volume as DICOM files; return the series' UID."""
    file = write_volume(work / "source.nii.gz", volume)
    series = Catalogue(work, lambda: {"source": file}, work / "facts").volume_series()[0]
    folder.mkdir(parents=True, exist_ok=True)
    for number, uid in enumerate(series.sop_uids):
        series.read(uid).save_as(folder / f"{number:03}.dcm", write_like_original=False)
    return series.uid


@pytest.fixture
def folder(tmp_path):
    """A left-handed NIfTI, `flipped`, and a DICOM series in a folder below."""
    studies = tmp_path / "studies"
    write_studies(studies, ("first",))
    write_volume(studies / "flipped.nii.gz", stored_as(phantom().volume, (0, 1, 2), (False, False, True)))
    (tmp_path / "work").mkdir()
    write_dicom(phantom("anisotropic").volume, studies / "below" / "series", tmp_path / "work")
    return studies


@pytest.fixture
def opened(folder):
    """Open the folder as often as a test likes; background work is stopped at the end."""
    stores = []

    def make():
        stores.append(StudiesDatastore(str(folder), extensions=["*.nii.gz", "*.nrrd"]))
        return stores[-1]

    yield make
    for store in stores:
        store.deliveries.close()


@pytest.fixture
def store(opened):
    return opened()


def series_id(store):
    return next(name for name in store.list_images() if name.startswith("2.25."))


def sent(store):
    """Wait for the delivery queue, and return the DICOM SEG objects in the folder."""
    end = time.monotonic() + 60
    while store.deliveries.waiting() and time.monotonic() < end:
        time.sleep(0.02)
    assert store.deliveries.waiting() == []
    return [pydicom.dcmread(file) for file in (store._work.parent / "segmentations").glob("*.dcm")]


def volume_of(store, image):
    return read_volume(store.scan_path(image))


def ball_label(path, volume):
    return write_mask(path, volume.array > 70, volume.geometry)


def test_files_and_series_are_images(store, opened):
    uid = series_id(store)
    assert set(store.list_images()) == {"first", "flipped", uid}
    assert read_volume(store.scan_path(uid)).modality == "MR"
    assert np.array_equal(read_volume(store.get_image_uri(uid)).array, read_volume(store.scan_path(uid)).array)
    names = store.dicom_names(uid)
    assert names["SeriesInstanceUID"] == uid and names["Modality"] == "MR"
    assert set(opened().list_images()) == {"first", "flipped", uid}
    with pytest.raises(InputError, match="stays"):
        store.remove_image(uid)


def test_a_series_that_comes_later_is_listed(store, folder, tmp_path):
    store.catalogue.clock = lambda: float("inf")
    assert len(store.list_images()) == 3
    (tmp_path / "more").mkdir()
    uid = write_dicom(phantom("tube").volume, folder / "late", tmp_path / "more")
    store.catalogue._seen_s = float("-inf")
    assert uid in store.list_images()


def test_a_file_answers_to_its_series_uid(store):
    uid = store.dicom_names("flipped")["SeriesInstanceUID"]
    assert store.image_id(uid) == "flipped"
    as_file, as_series = read_volume(store.scan_path("flipped")), read_volume(store.scan_path(uid))
    assert np.array_equal(as_file.array[::-1], as_series.array)
    assert store.scan_path("1.2.3") == "" and store.scan_path("nothing") == ""


def test_a_label_made_in_a_viewer_is_turned_to_the_file(store, tmp_path):
    uid = store.dicom_names("flipped")["SeriesInstanceUID"]
    label = ball_label(tmp_path / "label.nrrd", read_volume(store.scan_path(uid)))
    assert store.save_label(uid, str(label), "final", INFO) == "flipped"
    saved, image = read_volume(store.get_label_uri("flipped", "final")), read_volume(store.scan_path("flipped"))
    assert not image.geometry.differences(saved.geometry)
    assert np.array_equal(saved.array > 0, image.array > 70)


@pytest.mark.parametrize("empty", [False, True])
def test_a_final_label_becomes_dicom_seg(store, tmp_path, empty):
    for name in ("flipped", series_id(store)):
        volume = read_volume(store.scan_path(name))
        label = write_mask(tmp_path / "label.nrrd", (volume.array > 70) & (not empty), volume.geometry)
        before = store.status()["completed"]
        store.save_label(name, str(label), "final", INFO)
        assert store.status()["completed"] == before + 1, "counted before anything was sent"
    segs = sent(store)
    assert len(segs) == 2
    assert {str(s.SegmentSequence[0].SegmentLabel) for s in segs} == {"spleen"}
    assert all(bool(s.pixel_array.any()) is not empty for s in segs)
    assert "SEG" in {s.summary.Modality for s in store.catalogue.all()}
    assert set(store.list_images()) == {"first", "flipped", series_id(store)}


def test_segments_have_the_names_of_their_voxels(store, tmp_path):
    """Slicer numbers segments that it leaves out of the file."""
    volume = read_volume(store.scan_path("first"))
    label = write_mask(tmp_path / "label.nrrd", 1 + (volume.array > 118) - (volume.array < 70), volume.geometry)
    listed = [{"name": "background", "idx": 1}, {"name": "spleen", "idx": 2}, {"name": "liver", "idx": 3}][1:]
    store.save_label("first", str(label), "final", {"label_info": listed})
    (seg,) = sent(store)
    assert [str(one.SegmentLabel) for one in seg.SegmentSequence] == ["spleen", "liver"]
    frames = [f.SegmentIdentificationSequence[0].ReferencedSegmentNumber for f in seg.PerFrameFunctionalGroupsSequence]
    liver = sum(plane.sum() for plane, number in zip(seg.pixel_array, frames, strict=True) if number == 2)
    assert liver == (volume.array > 118).sum()


def test_a_label_that_is_renamed_has_a_seg_of_that_name(store, tmp_path):
    label = ball_label(tmp_path / "label.nrrd", read_volume(store.scan_path("first")))
    store.save_label("first", str(label), "final", INFO)
    assert [str(seg.SegmentSequence[0].SegmentLabel) for seg in sent(store)] == ["spleen"]
    store.update_label_info("first", "final", {"label_info": [{"name": "liver", "idx": 1}]})
    assert [str(seg.SegmentSequence[0].SegmentLabel) for seg in sent(store)] == ["liver"]


def test_a_draft_stays_here(store, tmp_path):
    label = ball_label(tmp_path / "label.nrrd", read_volume(store.scan_path("first")))
    store.save_label("first", str(label), "original", INFO)
    assert sent(store) == []


def test_of_a_label_only_its_current_seg_is_listed(store, tmp_path):
    volume = read_volume(store.scan_path("first"))
    for level in (70, 118, 124):
        label = write_mask(tmp_path / "label.nrrd", volume.array > level, volume.geometry)
        store.save_label("first", str(label), "final", INFO)
    assert [int(seg.pixel_array.sum()) for seg in sent(store)] == [int((volume.array > 124).sum())]
    assert [series.summary.Modality for series in store.catalogue.all()].count("SEG") == 1
    with pytest.raises(OSError, match="full"), store.all_or_nothing("first", "final"):
        store.save_label("first", str(ball_label(tmp_path / "other.nrrd", volume)), "final", INFO)
        sent(store)
        raise OSError("the disk is full")
    assert [int(seg.pixel_array.sum()) for seg in sent(store)] == [int((volume.array > 124).sum())]
    store.remove_label("first", "final")
    assert sent(store) == []
    assert len(list((store._work.parent / "labels" / "versions" / "final" / "first").glob("*.nrrd"))) >= 3


def test_a_seg_that_a_delivery_puts_aside_meanwhile_stops_nobody(store, tmp_path, monkeypatch):
    label = ball_label(tmp_path / "label.nrrd", volume_of(store, "first"))
    store.save_label("first", str(label), "final", INFO)
    assert len(sent(store)) == 1

    def gone(file, uid):
        file.unlink()
        return True

    monkeypatch.setattr("slicecast.labelling.store.studies._refers_to", gone)
    store.remove_label("first", "final")
    assert store.get_labeled_images() == []


@pytest.fixture
def waiting(store, monkeypatch):
    """The store whose queue delivers only when it is told to."""
    monkeypatch.setattr(store.deliveries, "start", lambda: None)
    return store


def test_a_label_that_was_replaced_or_removed_before_its_turn_is_not_delivered(waiting, tmp_path):
    volume, folder = volume_of(waiting, "first"), waiting._work.parent / "segmentations"
    for level in (70, 118):
        label = write_mask(tmp_path / "label.nrrd", volume.array > level, volume.geometry)
        waiting.save_label("first", str(label), "final", INFO)
    assert waiting.deliveries.deliver_all() == 0
    assert [int(pydicom.dcmread(file).pixel_array.sum()) for file in folder.rglob("*.dcm")] == [
        int((volume.array > 118).sum())
    ]
    waiting.save_label(
        "flipped", str(ball_label(tmp_path / "label.nrrd", volume_of(waiting, "flipped"))), "final", INFO
    )
    waiting.remove_label("flipped", "final")
    assert waiting.deliveries.deliver_all() == 0 and len(list(folder.rglob("*.dcm"))) == 1


def test_a_command_that_meets_a_servers_job_delivers_it(waiting, opened, folder, tmp_path):
    """It read the index before the server saved the label."""
    command = opened()
    waiting.save_label(
        "flipped", str(ball_label(tmp_path / "label.nrrd", volume_of(waiting, "flipped"))), "final", INFO
    )
    assert command.deliveries.deliver_all() == 0 and len(list((folder / "segmentations").glob("*.dcm"))) == 1


def test_a_label_that_could_not_be_saved_does_not_wait_for_delivery(waiting, tmp_path, monkeypatch):
    def fill(*anything):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("slicecast.labelling.store.datastore.place_file", fill)
    with pytest.raises(OSError, match="No space"):
        waiting.save_label(
            "first", str(ball_label(tmp_path / "label.nrrd", volume_of(waiting, "first"))), "final", INFO
        )
    assert waiting.deliveries.waiting() == []


def test_a_label_on_another_grid_is_refused(store, tmp_path):
    label = write_mask(tmp_path / "label.nrrd", np.ones((3, 3, 3), bool), Geometry((3, 3, 3)))
    with pytest.raises(GeometryError, match="another grid"):
        store.save_label("first", str(label), "final", INFO)
    assert sent(store) == [] and store.status()["completed"] == 0


def test_a_label_that_cannot_be_seg_is_kept(store, tmp_path, monkeypatch):
    def refuse(*anything):
        raise InputError("no SEG")

    monkeypatch.setattr("slicecast.labelling.store.studies.seg_of_label", refuse)
    label = ball_label(tmp_path / "label.nrrd", read_volume(store.scan_path("first")))
    store.save_label("first", str(label), "final", INFO)
    assert sent(store) == [] and store.status()["completed"] == 1


def send(store, *parts):
    save = store.save_label
    return store.store_instances(parts, save=lambda image, file, info: save(image, str(file), "final", info))


def test_a_seg_from_a_viewer_is_a_label_at_once(store):
    uid = series_id(store)
    series = store.catalogue.of_image(uid)
    volume = read_volume(store.scan_path(uid))
    data = write_seg((volume.array > 70).astype(np.uint8), volume.geometry, series, SegNames({"a": 1}, "1", "1.2.9"))
    stream = BytesIO()
    data.save_as(stream)
    outcome = send(store, stream.getvalue(), b"no DICOM at all")
    assert len(outcome.stored) == 1 and [reason for _, reason in outcome.refused] == [0xC000]
    assert store.get_labeled_images() == [uid]
    assert np.array_equal(read_volume(store.get_label_uri(uid, "final")).array > 0, volume.array > 70)
    assert not send(store, stream.getvalue()).refused, "the same one twice"
    data.ContentDescription = "another"
    other = BytesIO()
    data.save_as(other)
    assert [reason for _, reason in send(store, other.getvalue()).refused] == [0x0111]
    assert len(sent(store)) == 1


def seg_of(store, image, levels=70):
    """Return the bytes of a DICOM SEG of an image's bright voxels, as a viewer would send it."""
    volume, series = read_volume(store.scan_path(image)), store.catalogue.of_image(image)
    mask, stream = (volume.array > levels).astype(np.uint8), BytesIO()
    write_seg(mask, volume.geometry, series, SegNames({"a": 1}, "1", f"1.2.{len(image)}")).save_as(stream)
    return stream.getvalue()


def test_a_seg_that_cannot_be_saved_does_not_take_the_others_with_it(store):
    uid = series_id(store)
    parts = [seg_of(store, uid), seg_of(store, store.dicom_names("flipped")["SeriesInstanceUID"])]
    del store._datastore.objects[uid]  # the series has just been copied into the folder: shown, but no image yet
    outcome = send(store, *parts)
    assert [reason for _, reason in outcome.refused] == [0xC000] and len(outcome.stored) == 1
    assert store.get_labeled_images() == ["flipped"]
    assert len(list((store._work.parent / "segmentations").glob("*.dcm"))) == 1


FULL = """
import resource, signal, sys
from slicecast.labelling.store.studies import StudiesDatastore
store = StudiesDatastore(sys.argv[1], extensions=["*.nii.gz", "*.nrrd"])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
try:
    store.save_label("first", sys.argv[2], "final", {})
except OSError as error:
    print("refused", error.errno)
else:
    print("saved")
"""


@pytest.mark.slow
def test_a_full_disk_keeps_the_old_label_and_tells(store, folder, tmp_path):
    volume = read_volume(store.scan_path("first"))
    old = write_mask(tmp_path / "old.nrrd", volume.array > 120, volume.geometry, compress=False)
    new = write_mask(tmp_path / "new.nrrd", volume.array > 70, volume.geometry, compress=False)
    store.save_label("first", str(old), "final", INFO)
    sent(store)
    for limit in (100, new.stat().st_size - 1):
        command = [sys.executable, "-W", "ignore", "-c", FULL, str(folder), str(new), str(limit)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "refused" in done.stdout
        assert (folder / "labels" / "final" / "first.nrrd").read_bytes() == old.read_bytes()
    assert store.deliveries.waiting() == [], "what was refused is never sent"


KILLED = """
import os, signal, sys
from slicecast.labelling.store.studies import StudiesDatastore
store = StudiesDatastore(sys.argv[1], extensions=["*.nii.gz", "*.nrrd"])
count, step = 0, int(sys.argv[3])
def tick(event, args):
    global count
    if event in ("open", "os.rename", "os.link", "os.chmod", "os.mkdir", "os.remove") and sys.argv[1] in str(args):
        count += 1
        if count == step:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(tick)
store.save_label("first", sys.argv[2], "final", {})
print("saved", flush=True)
os._exit(0)
"""


@pytest.mark.slow
def test_killed_at_any_step_the_old_or_the_new_label_is_there(opened, folder, tmp_path):
    store = opened()
    volume = read_volume(store.scan_path("first"))
    old = write_mask(tmp_path / "old.nrrd", volume.array > 120, volume.geometry)
    new = write_mask(tmp_path / "new.nrrd", volume.array > 70, volume.geometry)
    store.save_label("first", str(old), "final", INFO)
    sent(store)
    step, said = 1, False
    while not said:
        command = [sys.executable, "-W", "ignore", "-c", KILLED, str(folder), str(new), str(step)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        said = "saved" in done.stdout
        again = StudiesDatastore(str(folder), extensions=["*.nii.gz", "*.nrrd"])
        content = (folder / "labels" / "final" / "first.nrrd").read_bytes()
        assert content == new.read_bytes() or (content == old.read_bytes() and not said)
        assert again.get_labeled_images() == ["first"]
        again.deliveries.close()
        step += 11
        assert step < 400
    versions = {file.read_bytes() for file in (folder / "labels" / "versions" / "final" / "first").glob("*.nrrd")}
    assert old.read_bytes() in versions
