"""Saving a label over HTTP."""

import errno
import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from builders import phantom
from labelserver import label_bytes

from slicecast.dicom.seg import SegNames, write_seg
from slicecast.server.dependencies import labelling_app
from slicecast.volume import Geometry, Volume, read_volume, write_volume

LABEL = label_bytes()


def save(client, image="first", content=LABEL, *, who="ann", params="{}", **query):
    files = {"label": ("label.nii.gz", content)}
    return client.put(
        "/datastore/label",
        params={"image": image, **query},
        data={"params": params},
        files=files,
        headers={"X-Slicecast-User": who},
    )


def test_a_saved_label_is_submitted(client):
    assert save(client).json() == {"image": "first", "label": "first"}
    assert client.get("/campaign/status").json()["people"][0]["who"] == "ann"
    client.delete("/datastore/label", params={"id": "first", "tag": "final"})


def test_another_persons_case_is_a_conflict(client):
    held = client.post("/activelearning/first", json={"client_id": "ann"}).json()["id"]
    refused = save(client, held, who="bob")
    assert refused.status_code == 409 and "with ann for another 30 min" in refused.json()["detail"]
    assert save(client, held, who="ann").status_code == 200


@pytest.mark.parametrize(
    ("query", "params", "status"),
    [
        ({"image": "nothing"}, "{}", 404),
        ({"tag": "../up"}, "{}", 422),
        ({}, "[1]", 422),
        ({"image": "../x"}, "{}", 404),
    ],
)
def test_bad_requests(client, query, params, status):
    assert save(client, **{"image": "second", **query}, who="cid", params=params).status_code == status


SCAN = phantom().volume


def labels_of(client):
    objects = client.get("/datastore/?output=all").json()["objects"]
    return {name: known["labels"].get("final") for name, known in objects.items()}  # pre-annotations come meanwhile


@pytest.mark.parametrize(
    ("array", "geometry", "message"),
    [
        (np.ones((9, 9, 9), np.uint8), Geometry((9, 9, 9)), "another grid"),
        ((SCAN.array > 70) * np.float32(0.5), SCAN.geometry, "fractions"),
        ((SCAN.array > 70) * np.int16(300), SCAN.geometry, "holds 300"),
        ((SCAN.array > 70) * np.int16(-1), SCAN.geometry, "holds -1"),
        ((SCAN.array > 70) * np.uint8(77), SCAN.geometry, "77 have no name"),
    ],
)
def test_what_is_no_label_is_refused_and_changes_nothing(client, tmp_path, array, geometry, message):
    file = write_volume(tmp_path / "label.nii.gz", Volume(array, geometry))
    before = labels_of(client), client.get("/campaign/status").json()
    refused = save(client, content=file.read_bytes())
    assert refused.status_code == 422 and message in refused.json()["detail"]
    assert (labels_of(client), client.get("/campaign/status").json()) == before


@pytest.mark.parametrize("content", [b"garbage", label_bytes()[: len(label_bytes()) // 2], b""])
def test_what_is_no_volume_is_refused(client, content):
    refused = save(client, content=content)
    assert refused.status_code == 422 and "/tmp" not in refused.json()["detail"]


def test_floats_that_hold_whole_numbers_are_a_label(client, tmp_path):
    file = write_volume(tmp_path / "label.nii.gz", SCAN.with_array((SCAN.array > 70) * np.float32(2)))
    named = '{"label_info": [{"name": "liver", "idx": 2}]}'
    assert save(client, content=file.read_bytes(), params=named).status_code == 200
    (tmp_path / "saved.nii.gz").write_bytes(client.get("/datastore/label?label=first&tag=final").content)
    saved = sitk.ReadImage(str(tmp_path / "saved.nii.gz"))
    assert saved.GetPixelIDTypeAsString() == "8-bit unsigned integer" and sitk.GetArrayFromImage(saved).max() == 2
    client.delete("/datastore/label", params={"id": "first", "tag": "final"})


def held_by_ann(client):
    client.post("/campaign/case/second/take", headers={"X-Requested-With": "slicecast", "X-Slicecast-User": "ann"})


def test_save_label_passes_by_no_lease(client):
    held_by_ann(client)
    form = {"params": json.dumps({"liver": [[12, 10, 8]], "save_label": True, "label_tag": "final"})}
    refused = client.post("/infer/sam2?image=second", data=form, headers={"X-Slicecast-User": "bob"})
    assert refused.status_code == 409 and "with ann" in refused.json()["detail"]


def test_a_seg_passes_by_no_lease(client):
    held_by_ann(client)
    store = labelling_app().datastore()
    series = store.catalogue.of_image("second")
    volume, stream = read_volume(series.scan_path()), BytesIO()
    mask, names = (volume.array > 70).astype(np.uint8), SegNames({"a": 1}, "1", "1.2.3")
    write_seg(mask, volume.geometry, series, names).save_as(stream)
    body = b"--x\r\nContent-Type: application/dicom\r\n\r\n" + stream.getvalue() + b"\r\n--x--\r\n"
    kind = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=x'}
    for who, status in (("bob", 409), ("ann", 200)):
        answer = client.post("/dicom-web/studies", content=body, headers={**kind, "X-Slicecast-User": who})
        assert answer.status_code == status
    assert store.get_label_info("second", "final")["user"] == "ann"
    client.delete("/datastore/label", params={"id": "second", "tag": "final"})


@pytest.fixture
def full_disk(monkeypatch):
    """Let no file of the studies be written whole."""

    def sync(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    def copy_file(source, target, *more):
        Path(target).write_bytes(b"")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("slicecast.files.os.fsync", sync)
    monkeypatch.setattr("monailabel.datastore.local.shutil.copy", copy_file)
    return monkeypatch


def files_of(client):
    labelling_app().campaign_service.wait()  # it looks for labels in the background
    folder = labelling_app().datastore()._work.parent
    return {str(p): p.stat().st_size for p in folder.rglob("*") if p.is_file() and ".slicecast" not in p.parts}


def test_a_full_disk_is_said_and_leaves_all_as_it_was(client, full_disk):
    before = files_of(client)
    scan = client.get("/datastore/image?image=first").content
    refused = [
        save(client, "second"),
        save(client, "second", tag="draft"),
        client.put("/datastore/?image=new", files={"file": ("new.nii.gz", scan)}),
    ]
    assert [answer.status_code for answer in refused] == [507] * 3, [answer.text for answer in refused]
    full_disk.undo()
    left = {name: size for name, size in files_of(client).items() if before.get(name) != size}
    assert not [name for name in left if "labels" in name or "new" in name]
    assert save(client, "second").status_code == 200
    client.delete("/datastore/label", params={"id": "second", "tag": "final"})
