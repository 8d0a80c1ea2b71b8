"""Backups: one moment of a folder that is being worked in, and back again."""

import io
import json
import sqlite3
import tarfile
import threading

import pytest
from typer.testing import CliRunner

from slicecast.campaign.backup import back_up, restore
from slicecast.campaign.campaign import open_campaign
from slicecast.campaign.events import Kind
from slicecast.cli.main import app
from slicecast.config import users_file
from slicecast.errors import Conflict, InputError, NotFound


@pytest.fixture(autouse=True)
def _own_users(tmp_path, monkeypatch):
    monkeypatch.setenv("SLICECAST_USERS", str(tmp_path / "home" / "users.json"))


def promote(campaign, number):
    """Write an event."""
    campaign.weights_changed(Kind.PROMOTED, "lee", {"model": f"v{number}"})


@pytest.fixture
def studies(tmp_path):
    folder = tmp_path / "studies"
    (folder / "labels" / "final").mkdir(parents=True)
    (folder / "labels" / "final" / "one.nii.gz").write_bytes(b"a label")
    (folder / "one.nii.gz").write_bytes(b"an image")
    (folder / "datastore_v2.json").write_text("{}")
    for name in ("sessions/sessions.sqlite", "cache/big", "logs/app.log"):
        (folder / ".slicecast" / "app" / name).parent.mkdir(parents=True)
        (folder / ".slicecast" / "app" / name).touch()
    with sqlite3.connect(folder / ".slicecast" / "app" / "sessions" / "sessions.sqlite") as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE clicks (n)")
        database.execute("INSERT INTO clicks VALUES (7)")
    promote(open_campaign(folder), 1)
    users_file().parent.mkdir()
    users_file().write_text('{"lee": {}}')
    return folder


def test_everything_but_images_comes_back(studies, tmp_path):
    made = back_up(studies, tmp_path / "b.tar")
    users_file().unlink()
    done = restore(tmp_path / "b.tar", tmp_path / "new")
    new = tmp_path / "new"
    assert (new / "labels" / "final" / "one.nii.gz").read_bytes() == b"a label"
    assert not (new / "one.nii.gz").exists() and not (new / ".slicecast" / "app" / "cache").exists()
    assert open_campaign(new).state().digest == open_campaign(studies).state().digest == done.digest == made.digest
    with sqlite3.connect(new / ".slicecast" / "app" / "sessions" / "sessions.sqlite") as database:
        assert database.execute("SELECT n FROM clicks").fetchall() == [(7,)]
    assert users_file().read_text() == '{"lee": {}}'
    assert not list(tmp_path.glob(".backup-*")) and not list(new.glob(".restore-*"))


def test_a_backup_while_people_work_shows_one_moment(studies, tmp_path):
    """Event n is written after label n: a moment holds all labels up to its last event, and at most one more."""
    campaign, stop, done = open_campaign(studies), threading.Event(), threading.Event()

    def work():
        for number in range(2, 2000):
            target = studies / "labels" / "final" / f"{number}.nii.gz"
            target.with_suffix(".part").write_bytes(b"x" * 5000)
            target.with_suffix(".part").rename(target)
            promote(campaign, number)
            done.set()
            if stop.wait(0.05):
                return

    thread = threading.Thread(target=work)
    thread.start()
    try:
        made = []
        for n in range(3):
            made.append(back_up(studies, tmp_path / f"{n}.tar"))
            done.clear()
            assert done.wait(30)
    finally:
        stop.set()
        thread.join()
    for n, manifest in enumerate(made):
        assert restore(tmp_path / f"{n}.tar", tmp_path / f"new{n}").events == manifest.events
        labels = len(list((tmp_path / f"new{n}" / "labels" / "final").glob("*.nii.gz")))
        assert manifest.events <= labels <= manifest.events + 1
    assert made[0].events < made[-1].events


def test_work_is_never_overwritten(studies, tmp_path):
    back_up(studies, tmp_path / "b.tar")
    before = {path: path.read_bytes() for path in studies.rglob("*") if path.is_file()}
    with pytest.raises(Conflict, match=r"holds work already \(labels"):
        restore(tmp_path / "b.tar", studies)
    assert {path: path.read_bytes() for path in studies.rglob("*") if path.is_file()} == before


def changed(file, new, path, content):
    """Copy a backup with one file replaced."""
    with tarfile.open(file) as old, tarfile.open(new, "w") as out:
        for member in old:
            data = content if member.name == path else old.extractfile(member).read()
            member.size = len(data)
            out.addfile(member, io.BytesIO(data))


def test_a_damaged_backup_changes_nothing(studies, tmp_path):
    back_up(studies, tmp_path / "b.tar")
    changed(tmp_path / "b.tar", tmp_path / "bad.tar", "labels/final/one.nii.gz", b"other")
    with pytest.raises(InputError, match=r"labels/final/one\.nii\.gz is not what was saved"):
        restore(tmp_path / "bad.tar", tmp_path / "new")
    with tarfile.open(tmp_path / "b.tar") as archive:
        manifest = json.load(archive.extractfile("manifest.json"))
    head = json.dumps({**manifest, "events": 9}).encode()
    changed(tmp_path / "b.tar", tmp_path / "cut.tar", "manifest.json", head)
    with pytest.raises(Conflict, match="do not end where they did"):
        restore(tmp_path / "cut.tar", tmp_path / "new")
    later = json.dumps({**manifest, "format": 2}).encode()
    changed(tmp_path / "b.tar", tmp_path / "later.tar", "manifest.json", later)
    with pytest.raises(InputError, match="a newer one"):
        restore(tmp_path / "later.tar", tmp_path / "new")
    (tmp_path / "text.tar").write_text("no archive")
    with pytest.raises(InputError, match="cannot be unpacked"):
        restore(tmp_path / "text.tar", tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_broken_chain_is_not_backed_up_as_if_it_held(studies, tmp_path):
    with sqlite3.connect(studies / "campaign" / "campaign.db") as database:
        database.execute("UPDATE slicecast_events SET who = 'mallory'")
    with pytest.raises(Conflict, match="chain of events is broken"):
        back_up(studies, tmp_path / "b.tar")
    assert not (tmp_path / "b.tar").exists()


def test_nothing_to_back_up(tmp_path):
    with pytest.raises(NotFound, match="nothing to back up"):
        back_up(tmp_path, tmp_path / "b.tar")


def test_the_commands(studies, tmp_path):
    file = tmp_path / "b.tar"
    done = CliRunner().invoke(app, ["backup", "--studies", str(studies), "-o", str(file)])
    assert done.exit_code == 0 and "1 events" in done.output, done.output
    done = CliRunner().invoke(app, ["restore", str(file), "--studies", str(tmp_path / "new")])
    assert done.exit_code == 0 and "the chain holds" in done.output, done.output
