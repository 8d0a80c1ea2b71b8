"""Archives: nothing climbs out, nothing explodes, nothing but plain files comes out."""

import contextlib
import io
import json
import random
import tarfile
import tempfile
import uuid
import zipfile
from pathlib import Path

import pytest

from slicecast.errors import InputError, TooLarge
from slicecast.labelling.store.uploads import SafeSessions, unpack

EVIL = ["../../out.nii", "/etc/out.nii", "a/../../out.nii", "C:\\out.nii", "..\\..\\out.nii", "a\nb.nii", "x" * 300]


def zipped(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return path


def tarred(path, files, *, mode="w:gz", kind=tarfile.REGTYPE, link=""):
    with tarfile.open(path, mode) as archive:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, link
            entry.size = len(content) if kind == tarfile.REGTYPE else 0
            archive.addfile(entry, io.BytesIO(content))
    return path


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "deep" / "in").mkdir(parents=True)
    return tmp_path / "deep" / "in"


def run(archive, folder, *, max_bytes=1 << 20, max_files=10):
    return unpack(archive, folder, max_bytes=max_bytes, max_files=max_files)


@pytest.mark.parametrize("name", EVIL)
@pytest.mark.parametrize("pack", [zipped, tarred])
def test_names_lead_nowhere(tmp_path, folder, pack, name):
    archive = pack(tmp_path / "archive", [(name, b"evil"), ("fine.dcm", b"fine")])
    before = set(tmp_path.rglob("*"))
    assert [file.read_bytes() for file in run(archive, folder)] == [b"evil", b"fine"]
    assert {file.parent for file in set(tmp_path.rglob("*")) - before} == {folder}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_every_kind_of_tar(tmp_path, folder, mode):
    archive = tarred(tmp_path / "archive", [("a.nii.gz", b"1"), ("b", b"2")], mode=mode)
    assert [file.name for file in run(archive, folder)] == ["00000.nii.gz", "00001.dcm"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE])
def test_only_plain_files_come_out(tmp_path, folder, kind):
    archive = tarred(tmp_path / "archive", [("evil", b"")], kind=kind, link="/etc/passwd")
    with pytest.raises(InputError, match="holds no file"):
        run(archive, folder)
    assert list(folder.iterdir()) == []


def test_a_link_in_a_zip(tmp_path, folder):
    with zipfile.ZipFile(tmp_path / "archive", "w") as archive:
        entry = zipfile.ZipInfo("evil")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(InputError, match="holds no file"):
        run(tmp_path / "archive", folder)


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_bombs(tmp_path, folder, pack):
    archive = pack(tmp_path / "archive", [("bomb.nii", bytes(3 << 20))])
    assert archive.stat().st_size < 10_000
    with pytest.raises(TooLarge, match="more than 1 MiB"):
        run(archive, folder)
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 1 << 20


def test_a_bomb_in_the_headers(tmp_path, folder):
    """A pax header is read into memory whole, whatever size it claims."""
    with tarfile.open(tmp_path / "archive", "w:gz", format=tarfile.PAX_FORMAT) as archive:
        entry = tarfile.TarInfo("a.nii")
        entry.pax_headers = {"comment": "x" * (48 << 20)}
        archive.addfile(entry)
    with pytest.raises(TooLarge):
        run(tmp_path / "archive", folder)


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_too_many_files(tmp_path, folder, pack):
    archive = pack(tmp_path / "archive", [(f"{n}.dcm", b"x") for n in range(11)])
    with pytest.raises(TooLarge, match="more than 10 files"):
        run(archive, folder)


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize("seed", range(20))
def test_damaged_archives(tmp_path, folder, pack, seed):
    archive = pack(tmp_path / "archive", [("a.nii", bytes(range(256)) * 8), ("b.nii", b"b" * 999)])
    content, rng = bytearray(archive.read_bytes()), random.Random(seed)
    for _ in range(4):
        content[rng.randrange(len(content))] = rng.randrange(256)
    archive.write_bytes(content[: rng.randrange(1, len(content))] if seed % 2 else content)
    with contextlib.suppress(InputError):
        run(archive, folder)


def test_no_archive_and_a_locked_one(tmp_path, folder):
    (tmp_path / "text").write_text("no archive " * 100)
    with pytest.raises(InputError, match="cannot be unpacked"):
        run(tmp_path / "text", folder)


@pytest.fixture
def sessions(tmp_path):
    (tmp_path / "sessions").mkdir()
    return SafeSessions(str(tmp_path / "sessions"), 3600)


def test_add_find_remove(sessions, tmp_path):
    image = tmp_path / "volume.nrrd"
    image.write_bytes(b"x")
    name, info = sessions.add_session(str(image))
    assert sessions.get_session(name).image == info.image
    sessions.remove_session(name)
    assert sessions.get_session(name) is None


def test_an_archive_that_cannot_be_unpacked_leaves_nothing(sessions, tmp_path):
    received = Path(tempfile.mkdtemp()) / "archive.zip"  # as MONAI Label receives it
    received.write_bytes(b"no archive")
    with pytest.raises(InputError, match="cannot be unpacked"):
        sessions.add_session(str(received), uncompress=True)
    assert not received.exists() and list((tmp_path / "sessions").iterdir()) == []


@pytest.mark.parametrize("name", ["..", ".", "../studies", "", "nothing", None, 7])
def test_other_names_are_not_found(sessions, tmp_path, name):
    (tmp_path / "studies").mkdir()
    (tmp_path / "meta.info").write_text("{}")
    assert sessions.get_session(name) is None
    sessions.remove_session(name)
    assert (tmp_path / "studies").is_dir() and (tmp_path / "sessions").is_dir()


def test_expired_and_broken_ones_are_removed(sessions, tmp_path):
    store = tmp_path / "sessions"
    broken, expired = str(uuid.uuid1()), str(uuid.uuid1())
    (store / broken).mkdir()
    (store / "not a session").mkdir()
    (store / expired).mkdir()
    image = store / expired / "volume.nrrd"
    image.write_bytes(b"x")
    record = {"name": expired, "path": str(image.parent), "image": str(image), "last_access_ts": 1, "expiry": 60}
    (store / expired / "meta.info").write_text(json.dumps(record))
    assert sessions.remove_expired() == 2
    assert [path.name for path in store.iterdir()] == ["not a session"]
