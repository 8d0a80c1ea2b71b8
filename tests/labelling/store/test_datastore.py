"""The store keeps every label, survives damage and threads, and stays in its folder."""

import json
import os
import shutil
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from monailabel.interfaces.datastore import DefaultLabelTag

from slicecast.errors import Conflict, InputError, NotFound, UnknownImage
from slicecast.files import place_file, write_atomically
from slicecast.labelling.store.datastore import keep_version


def label_file(folder: Path, content: bytes, extension: str = ".nii.gz") -> str:
    file = folder / f"upload{extension}"
    file.write_bytes(content)
    return str(file)


def versions(studies: Path, tag: str = "final") -> list[bytes]:
    folder = studies / "labels" / "versions" / tag / "first"
    return [file.read_bytes() for file in sorted(folder.iterdir()) if file.suffix != ".json"]


def test_lists_images(store):
    assert sorted(store.list_images()) == ["first", "second"]
    assert store.status() == {"total": 2, "completed": 0, "label_tags": {}}


def test_two_annotators_save_and_nothing_is_lost(store, studies, tmp_path):
    for who in (b"anna", b"ben", b"cleo"):
        store.save_label("first", label_file(tmp_path, who), "final", {"client_id": who.decode()})
    assert Path(store.get_label_uri("first", "final")).read_bytes() == b"cleo"
    assert versions(studies) == [b"anna", b"ben"]
    records = sorted((studies / "labels" / "versions" / "final" / "first").glob("*.json"))
    assert [json.loads(record.read_text())["client_id"] for record in records] == ["anna", "ben"]
    assert store.status()["completed"] == 1


def test_another_format_replaces_the_label_too(store, studies, tmp_path):
    store.save_label("first", label_file(tmp_path, b"nifti"), "final", {})
    store.save_label("first", label_file(tmp_path, b"nrrd", ".nrrd"), "final", {})
    assert [file.name for file in (studies / "labels" / "final").iterdir()] == ["first.nrrd"]
    assert versions(studies) == [b"nifti"]


def test_tags_of_monailabel_are_names(store, studies, tmp_path):
    store.save_label("first", label_file(tmp_path, b"pre"), DefaultLabelTag.ORIGINAL, {})
    assert (studies / "labels" / "original" / "first.nii.gz").read_bytes() == b"pre"
    assert store.status()["label_tags"] == {"original": 1}


def test_a_removed_label_is_kept_as_version(store, studies, tmp_path):
    store.save_label("first", label_file(tmp_path, b"anna"), "final", {})
    store.remove_label("first", "final")
    assert store.status()["completed"] == 0 and versions(studies) == [b"anna"]


def test_it_survives_a_restart(store, open_store, tmp_path):
    store.save_label("first", label_file(tmp_path, b"anna"), "final", {"client_id": "anna"})
    again = open_store()
    assert again.get_label_info("first", "final")["client_id"] == "anna"
    assert again.status()["completed"] == 1


def test_a_damaged_index_is_put_aside_and_rebuilt(store, open_store, studies, tmp_path):
    store.save_label("first", label_file(tmp_path, b"anna"), "final", {})
    (studies / "datastore_v2.json").write_text('{"objects": {"fir')
    again = open_store()
    assert again.status() == {"total": 2, "completed": 1, "label_tags": {"final": 1}}
    assert [file.name for file in studies.glob("*.damaged-*")] == ["datastore_v2.json.damaged-20240805T120000Z"]


@pytest.mark.parametrize(
    "tag", ["../../outside", "a/b", "a\\b", "", ".hidden", "..", "versions", "line\nbreak", "x" * 300]
)
def test_tags_that_lead_out_are_refused(store, studies, tmp_path, tag):
    with pytest.raises(InputError):
        store.save_label("first", label_file(tmp_path, b"x"), tag, {})
    assert sorted(path.name for path in studies.parent.iterdir()) == ["studies", "upload.nii.gz"]


@pytest.mark.parametrize("name", ["../escaped", "/etc/escaped", "a\\b", ".hidden", ".."])
def test_ids_that_lead_out_are_refused(store, tmp_path, name):
    with pytest.raises(InputError):
        store.add_image(name, label_file(tmp_path, b"x"), {})


def test_a_label_of_no_image(store, tmp_path):
    with pytest.raises(UnknownImage, match="There is no image 'third' to label"):
        store.save_label("third", label_file(tmp_path, b"x"), "final", {})


def test_an_image_sent_twice_keeps_its_labels(store, studies, tmp_path):
    image = str(studies / "first.nii.gz")
    assert store.add_image("third", image, {}) == "third"
    store.save_label("third", label_file(tmp_path, b"x"), "final", {})
    assert store.add_image("third", image, {}) == "third"
    assert store.status()["completed"] == 1
    with pytest.raises(Conflict, match="There is already another image 'third'"):
        store.add_image("third", str(studies / "second.nii.gz"), {})


def test_links_out_of_the_studies_are_listed_only_on_request(open_store, studies, tmp_path):
    outside = tmp_path / "elsewhere.nii.gz"
    outside.write_bytes(b"secret")
    (studies / "linked.nii.gz").symlink_to(outside)
    (studies / "alias.nii.gz").symlink_to(studies / "first.nii.gz")
    (studies / "._first.nii.gz").write_bytes(b"what macOS leaves behind")
    assert sorted(open_store().list_images()) == ["alias", "first", "second"]
    assert sorted(open_store(follow_links=True).list_images()) == ["alias", "first", "linked", "second"]


@pytest.mark.parametrize("follow_links", [False, True])
def test_links_in_a_circle_and_into_nothing_are_left_alone(open_store, studies, follow_links):
    (studies / "circle.nii.gz").symlink_to(studies / "circle.nii.gz")
    (studies / "nothing.nii.gz").symlink_to(studies / "gone.nii.gz")
    (studies / "round").symlink_to(studies, target_is_directory=True)
    assert sorted(open_store(follow_links=follow_links).list_images()) == ["first", "second"]


def test_nothing_to_pack(store):
    with pytest.raises(NotFound, match="No image has a final label yet"):
        store.get_dataset_archive(None)


def test_many_threads(store, studies, tmp_path):
    """MONAI Label's own store loses entries here: it dumps a dictionary that another thread is changing."""
    label = label_file(tmp_path, b"x")
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(10):
                store.update_image_info("first", {f"key {number} {turn}": turn})
                store.save_label("second", label, f"tag {number}", {})
                store.refresh()
                store.status()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    info = store.get_image_info("first")
    assert {f"key {number} {turn}" for number in range(4) for turn in range(10)} <= set(info)
    on_disk = json.loads((studies / "datastore_v2.json").read_text())
    assert set(on_disk["objects"]["second"]["labels"]) == {f"tag {number}" for number in range(4)}


def wait_for_note(studies, image, key):
    """Wait until a note about an image is in the index on disk."""
    index = studies / "datastore_v2.json"
    deadline = time.monotonic() + 60
    while key not in json.loads(index.read_text())["objects"][image]["image"]["info"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_notes_about_images_are_written_soon_and_together(store, studies):
    for number in range(20):
        store.update_image_info("first", {"shown": number})
    store.update_image_info("second", {"late": True})
    wait_for_note(studies, "second", "late")
    on_disk = json.loads((studies / "datastore_v2.json").read_text())
    assert on_disk["objects"]["first"]["image"]["info"]["shown"] == 19


def test_a_note_about_no_image_is_refused(store):
    with pytest.raises(UnknownImage, match="no image 'third'"):
        store.update_image_info("third", {})


def test_an_index_replaced_by_another_process_is_read(open_store, studies):
    store, other = open_store(), open_store()
    other.update_image_info("first", {"note": "from elsewhere"})
    wait_for_note(studies, "first", "note")
    store._on_moved(type("Event", (), {"dest_path": str(studies / "datastore_v2.json")}))
    assert store.get_image_info("first")["note"] == "from elsewhere"


def test_two_processes_do_not_forget_each_others_labels_and_notes(open_store, studies, tmp_path):
    """A server and a command: each has read the index before the other changed it."""
    server, command = open_store(), open_store()
    server.save_label("first", label_file(tmp_path, b"x"), "final", {"label_info": [{"name": "spleen", "idx": 1}]})
    server.update_image_info("first", {"shown": 1})
    command.save_label("second", label_file(tmp_path, b"x"), "final", {"user": "ann"})
    server.save_label("second", label_file(tmp_path, b"x"), "original", {})
    wait_for_note(studies, "first", "shown")
    for store in (open_store(), server):
        assert store.get_label_info("first", "final")["label_info"] == [{"name": "spleen", "idx": 1}]
        assert store.get_label_info("second", "final")["user"] == "ann"


@pytest.mark.parametrize("link", ["labels", "labels/final", "labels/versions"])
def test_links_out_of_the_studies_are_not_written_through(store, studies, tmp_path, link):
    outside, label = tmp_path / "outside", tmp_path / "label.nii.gz"
    outside.mkdir()
    shutil.copy(studies / "first.nii.gz", label)
    place = studies / link
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(outside)
    with pytest.raises(Conflict, match="leads out of them"):
        store.save_label("first", str(label), "final", {})
    assert not list(outside.iterdir())


NOON = datetime(2024, 8, 5, 12, 0, 0, tzinfo=UTC)


def keep(current: Path, folder: Path) -> Path | None:
    return keep_version(current, folder, extension=".nii.gz", info={"client_id": "anna"}, now=NOON)


def test_versions_of_one_second_get_numbers(tmp_path):
    current, folder = tmp_path / "a.nii.gz", tmp_path / "versions"
    for content in (b"one", b"two", b"three"):
        write_atomically(current, content)
        keep(current, folder)
        assert current.read_bytes() == content, "it stays until it is replaced"
    files = sorted(folder.glob("*.nii.gz"))
    assert [file.name for file in files] == [f"20240805T120000Z-{n}.nii.gz" for n in (1, 2, 3)]
    assert [file.read_bytes() for file in files] == [b"one", b"two", b"three"]
    assert json.loads((folder / "20240805T120000Z-1.nii.gz.json").read_text()) == {"client_id": "anna"}


def test_nothing_to_keep(tmp_path):
    assert keep(tmp_path / "absent.nii.gz", tmp_path / "versions") is None
    assert not (tmp_path / "versions").exists()


def test_without_hard_links_it_is_copied(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    write_atomically(tmp_path / "a.nii.gz", b"one")
    kept = keep(tmp_path / "a.nii.gz", tmp_path / "versions")
    assert kept.read_bytes() == b"one"


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    synced, target = [], tmp_path / "label"
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(target.exists()))
    write_atomically(target, b"new")
    assert synced[0] is False, "synced first, then renamed"


def test_a_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    target, source = tmp_path / "label", tmp_path / "new"
    target.write_bytes(b"old")
    source.write_bytes(b"new")

    def crash(_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="No space"):
        place_file(source, target)
    assert target.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["label", "new"]
