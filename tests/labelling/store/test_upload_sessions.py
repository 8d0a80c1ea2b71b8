"""Session ids cannot be paths, and broken sessions do not stop the clean-up."""

import json
import tempfile
import uuid
from pathlib import Path

import pytest

from slicecast.errors import InputError
from slicecast.labelling.store.upload_sessions import SafeSessions


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
