"""What the server of 21 November 2026 left: checked by `slicecast upgrade --check`, then served by today's.

The archive holds what that commit (647d5aa) wrote when a client opened two sessions, undid, redid, and submitted a
label twice; images are taken out, and the sessions' paths are neutral.
"""

import json
import shutil
import tarfile
from pathlib import Path

import httpx
import pytest
from clinic import SAMPLES
from labelserver import APP
from typer.testing import CliRunner

import slicecast
from slicecast.cli import upgrade
from slicecast.demo.server_process import serving
from slicecast.errors import ConfigError, ResourceError
from slicecast.labelling.state import VERSION, note_version

TOKEN = "ogdNAqemB78DQeMx9BYjkwHvPyi6nrj6S7UlhhnmRIo"
IMAGES = ("ct_abdomen_a", "ct_abdomen_b")


@pytest.fixture
def old(tmp_path, monkeypatch):
    with tarfile.open(Path(__file__).parent / "state-2026-11-21.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    for name in IMAGES:
        shutil.copy(SAMPLES / "studies" / f"{name}.nii.gz", tmp_path / "studies")
    (tmp_path / "users.json").chmod(0o600)
    monkeypatch.setenv("SLICECAST_USERS", str(tmp_path / "users.json"))
    shutil.copy(APP / "main.py", tmp_path / "app")
    return tmp_path


def check(old):
    words = ["--check", "--studies", str(old / "studies"), "--app", str(old / "app")]
    return CliRunner().invoke(upgrade.app, words, catch_exceptions=False)


def test_everything_is_read_and_nothing_changed(old):
    before = {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}
    done = check(old)
    assert done.exit_code == 0, done.output
    for words in ("2 images, 1 labels", "the chain holds", "2 open sessions, 4 edits", "1 users"):
        assert words in done.output
    assert {path: path.read_bytes() for path in old.rglob("*") if path.is_file()} == before


def test_what_a_later_version_wrote_is_said(old):
    index = old / "studies" / "datastore_v2.json"
    index.write_text(json.dumps({"things": {}}))
    done = check(old)
    assert done.exit_code == 1 and "CANNOT" in done.output
    with pytest.raises(ConfigError, match="--check"):
        CliRunner().invoke(upgrade.app, ["--studies", str(old)], catch_exceptions=False)


def test_a_folder_that_a_later_version_served_is_refused(tmp_path):
    note_version(tmp_path)
    assert (tmp_path / VERSION).read_text().strip() == slicecast.__version__
    (tmp_path / VERSION).write_text("99.1.0")
    with pytest.raises(ResourceError, match=r"Slicecast 99\.1\.0 has served these studies"):
        note_version(tmp_path)


@pytest.mark.slow
def test_todays_server_goes_on_with_it(old):
    options = ["--labels", "liver,spleen"]
    with (
        serving(old / "studies", app=old / "app", log=old / "log.txt", options=options) as server,
        httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=300.0) as client,
    ):
        assert client.get("/info/").json()["datastore"]["completed"] == 1
        sessions = {one["image"]: one for one in client.get("/slicecast/sessions").json()["sessions"]}
        assert set(sessions) == set(IMAGES) and sessions["ct_abdomen_a"]["owner"] == "anna"
        address = f"/slicecast/sessions/{sessions['ct_abdomen_a']['id']}"
        undone = client.post(f"{address}/undo")
        assert undone.status_code == 200, undone.text
        assert undone.json()["prompts"] == []
        assert len(client.post(f"{address}/redo").json()["prompts"]) == 1
        assert client.get(f"{address}/result").status_code == 200
    assert list((old / "studies" / "labels" / "versions" / "final" / "ct_abdomen_b").glob("*.nii.gz"))
    assert check(old).exit_code == 0
