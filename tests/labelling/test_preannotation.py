"""Pre-annotations from a submitted label."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from builders import ball, grid, phantom, stored_as

from slicecast.errors import Conflict, GeometryError, SlicecastError
from slicecast.inference.segment import SegmentService
from slicecast.labelling.batch import BatchInference, BatchRequest
from slicecast.labelling.landmarks import find_body, landmarks, transfer
from slicecast.labelling.preannotation import PreAnnotator
from slicecast.volume import Volume, read_volume, write_mask, write_volume
from slicecast_lab.simulation.fake import FakePredictor

LABELS = ("other", "ball")
WAIT_S = 120


@pytest.fixture
def submit(store, tmp_path):
    """Save the phantom's true ball as an image's final label."""

    def save(image_id, *, value=2, info=True, like=None):
        scan = read_volume(store.get_image_uri(image_id))
        truth = np.roll(phantom().truth, {"first": 0, "second": 1}[image_id], axis=0)
        file = write_mask(tmp_path / "label.nii.gz", truth * np.uint8(value), like or scan.geometry)
        told = {"label_info": [{"name": "ball", "idx": value}]} if info else {}
        return store.save_label(image_id, str(file), "final", told)

    return save


@pytest.fixture
def annotator(store):
    return PreAnnotator(SegmentService(predictor=FakePredictor()), store, LABELS)


def test_an_image_without_a_label_gets_a_mask_with_names(store, submit, annotator):
    submit("first")
    annotator.submit("first")
    assert annotator.wait(WAIT_S)
    params = store.get_label_info("second", "original")["params"]
    assert params["label_names"] == {"ball": 2} and params["carried_from"] == "first"
    assert 0 <= params["mean_confidence"] <= 1
    mask = read_volume(store.get_label_uri("second", "original"))
    truth = np.roll(phantom().truth, 1, axis=0)
    assert 2 * (truth & (mask.array == 2)).sum() / (truth.sum() + (mask.array == 2).sum()) > 0.8
    assert not mask.geometry.differences(read_volume(store.get_image_uri("second")).geometry)


def test_images_with_a_label_or_a_pre_annotation_keep_theirs(store, submit, annotator):
    submit("first")
    assert annotator.annotate("first", ["first", "second"]) == ["second"]
    before = store.get_label_info("second", "original")
    assert annotator.annotate("first", ["second"]) == []
    assert store.get_label_info("second", "original") == before


def test_another_orientation_is_the_same_patient(studies, store, submit, annotator):
    turned = stored_as(phantom().volume, (2, 0, 1), (True, False, True))
    write_volume(studies / "turned.nii.gz", turned)
    store.refresh()
    submit("first")
    assert annotator.annotate("first", ["turned"]) == ["turned"]
    truth = stored_as(phantom().volume.with_array(phantom().truth * 100.0), (2, 0, 1), (True, False, True)).array > 50
    mask = read_volume(store.get_label_uri("turned", "original")).array == 2
    assert 2 * (truth & mask).sum() / (truth.sum() + mask.sum()) > 0.8


def test_a_label_without_names_means_the_servers_numbers(store, submit, annotator):
    submit("first", info=False)
    annotator.annotate("first", ["second"])
    assert store.get_label_info("second", "original")["params"]["label_names"] == {"ball": 2}


def test_an_image_that_cannot_be_used_does_not_stop_the_others(studies, store, submit, annotator, monkeypatch):
    for name in ("damaged", "removed", "third"):
        shutil.copy(studies / "second.nii.gz", studies / f"{name}.nii.gz")
    store.refresh()
    (studies / "damaged.nii.gz").write_bytes(b"no volume")
    submit("first")
    segment = annotator._service.segment

    def removed_meanwhile(request, **given):
        if request.image.name.startswith("removed"):
            del store._datastore.objects["removed"]
        return segment(request, **given)

    monkeypatch.setattr(annotator._service, "segment", removed_meanwhile)
    assert annotator.annotate("first", ["damaged", "removed", "second", "third"]) == ["second", "third"]


def test_a_label_that_cannot_be_used_harms_nothing(store, submit, annotator, tmp_path):
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"no volume")
    store.save_label("first", str(broken), "final", {})
    with pytest.raises(SlicecastError):
        annotator.annotate("first", ["second"])
    moved = phantom("oblique").volume.geometry
    submit("first", like=moved)
    with pytest.raises(GeometryError, match="not on its image's grid"):
        annotator.annotate("first", ["second"])
    submit("first")
    for image_id in ("gone", "first"):
        annotator.submit(image_id)
    assert annotator.wait(WAIT_S) and store.get_label_uri("second", "original")


def test_a_batch_needs_a_label_to_start_from(store, annotator):
    with pytest.raises(Conflict, match="no image has one yet"):
        BatchInference(annotator, store).run(BatchRequest())


def test_one_image_that_cannot_be_used_does_not_end_a_batch(store, studies, submit, annotator):
    submit("first")
    (studies / "second.nii.gz").write_bytes(b"garbage")
    done = BatchInference(annotator, store).run(BatchRequest("unlabeled"))
    assert done.status == "DONE" and "not gzip" in done.results["second"] and str(studies) not in done.results["second"]


SIZE = (40, 36, 20)


def person(*, size=SIZE, spacing_mm=(2, 2, 3), organ=(14, 20, 9), brightness=1.0):
    """A body with a bright organ and, for confusion, another structure as bright on the other side."""
    centre = np.array(size) / 2
    voxels = np.argwhere(np.ones(size[::-1]))[:, ::-1]
    body = (np.linalg.norm((voxels - centre) / centre, axis=1) < 0.9).reshape(size[::-1])
    label = ball(size, centre_ijk=organ, radius=4.0)
    twin = ball(size, centre_ijk=(size[0] - organ[0], *organ[1:]), radius=4.0)
    numbers = np.where(body, 60.0, 0.0)
    numbers[label | twin] = 100.0
    noise = np.random.default_rng(0).normal(0, 2, numbers.shape)
    return Volume(((numbers + noise) * brightness).astype(np.float32), grid(size, spacing_mm=spacing_mm)), label * 1


def test_a_structure_is_found_in_a_larger_and_brighter_body():
    scan, label = person()
    known = landmarks(scan, label, {"organ": 1, "absent": 2})
    assert set(known) == {"organ"}
    other, truth = person(size=(50, 44, 26), organ=(17, 25, 12), brightness=3.0)
    i, j, k = transfer(known, other)["organ"]
    assert truth[k, j, i] == 1


def test_its_own_scan_gives_its_own_place():
    scan, label = person()
    i, j, k = transfer(landmarks(scan, label, {"organ": 1}), scan)["organ"]
    assert label[k, j, i] == 1


def test_a_structure_whose_brightness_is_nowhere_near_is_left_out():
    scan, label = person()
    known = landmarks(scan, label, {"organ": 1})
    assert transfer({"organ": replace(known["organ"], brightness=2.0)}, scan) == {}


def test_bodies_of_another_part_or_kind_of_scan_are_not_compared():
    body = find_body(person()[0])
    near, wide = find_body(person(spacing_mm=(2.1, 2, 3))[0]), find_body(person(spacing_mm=(4, 2, 3))[0])
    scan, _ = person()
    hounsfield = scan.with_array((scan.array * 10 - 1000).round().astype(np.int16))
    ct = find_body(hounsfield)
    assert body.resembles(near) and not body.resembles(wide)
    assert ct.is_ct and not body.resembles(ct)


@pytest.mark.parametrize("value", [0, 7])
def test_an_empty_scan_has_a_body(value):
    empty = Volume(np.full(SIZE[::-1], value, np.int16), grid(SIZE))
    assert np.isfinite(find_body(empty).low_mm).all()
