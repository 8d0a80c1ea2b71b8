"""What the server of 21 November 2026 left: checked by `slicecast upgrade --check`, then served by today's.

The archive holds what that commit (647d5aa) wrote when a client opened two sessions, undid, redid, and submitted a
label twice; images are taken out, and the sessions' paths are neutral.
"""

import json
import shutil
import sqlite3
import tarfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from clinic import SAMPLES
from labelserver import APP
from typer.testing import CliRunner

import slicecast
from slicecast.campaign import events
from slicecast.campaign.events import EventStore, sqlite_url
from slicecast.cli import upgrade
from slicecast.demo.server_process import serving
from slicecast.errors import ResourceError, UpgradeNeeded
from slicecast.inference import session_store
from slicecast.inference.session_store import SessionStore
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


def run(old, *words):
    words = [*words, "--studies", str(old / "studies"), "--app", str(old / "app")]
    return CliRunner().invoke(upgrade.app, words, catch_exceptions=False)


def check(old):
    return run(old, "--check")


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


LATER = """'A note beside everything.'
import sqlalchemy as sa
from alembic import op

revision, down_revision = "0002", "0001"

def upgrade():
    op.add_column({table!r}, sa.Column("note", sa.String))
"""


@pytest.fixture
def later(tmp_path, monkeypatch):
    """A Slicecast that has one more revision of both databases."""
    for module, table in ((events, "slicecast_events"), (session_store, "sessions")):
        folder = shutil.copytree(module.SCHEMA.revisions, tmp_path / f"revisions of {table}")
        (folder / "second.py").write_text(LATER.format(table=table))
        monkeypatch.setattr(module, "SCHEMA", replace(module.SCHEMA, revisions=folder))


def files(old):
    return old / "studies" / "campaign" / "campaign.db", old / "app" / "sessions" / "sessions.sqlite"


def asked(file, question):
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(question).fetchall()


def test_databases_without_a_version_become_the_first_one(old):
    done = run(old)
    assert (done.exit_code, done.output) == (0, "campaign: nothing to convert\nsessions: nothing to convert\n")
    for file in files(old):
        assert asked(file, "SELECT * FROM slicecast_version") == [("0001",)]
    assert check(old).exit_code == 0


def test_what_is_pending_is_named_and_carried_out_after_a_copy(old, later):
    before = check(old)
    assert before.exit_code == 1 and " ".join(before.output.split()).count("0002 A note beside everything") == 2
    with pytest.raises(UpgradeNeeded, match="slicecast upgrade"):
        EventStore(sqlite_url(files(old)[0]))
    said = run(old).output.splitlines()
    assert [line.partition(";")[0] for line in said] == ["campaign: converted", "sessions: converted"]
    for file, line, table in zip(files(old), said, ("slicecast_events", "sessions"), strict=True):
        assert set(asked(file, f"SELECT note FROM {table}")) == {(None,)}
        with pytest.raises(sqlite3.OperationalError, match="no such column"):
            asked(line.partition("as it was: ")[2], f"SELECT note FROM {table}")
    assert check(old).exit_code == 0 and "4 edits" in check(old).output


def test_what_fails_changes_nothing(old, later, tmp_path):
    with (tmp_path / "revisions of sessions" / "second.py").open("a") as file:
        file.write("    op.drop_table('none')\n")
    with pytest.raises(sa.exc.OperationalError):
        run(old)
    assert asked(files(old)[1], "SELECT name FROM sqlite_master WHERE type = 'table'") == [("sessions",), ("records",)]


def test_a_database_of_a_later_version_is_refused(old):
    for file, is_opened in zip(
        files(old), (lambda f: EventStore(sqlite_url(f)), lambda f: SessionStore(f.parent)), strict=True
    ):
        is_opened(file)
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("UPDATE slicecast_version SET version_num = '0099'")
            connection.commit()
        with pytest.raises(ResourceError, match="A later version of Slicecast has changed"):
            is_opened(file)
    done = check(old)
    assert done.exit_code == 1 and done.output.count("CANNOT") == 2


@pytest.mark.parametrize("schema", [events.SCHEMA, session_store.SCHEMA], ids=["campaign", "sessions"])
def test_the_revisions_lead_to_the_tables_of_the_code(schema):
    engine = sa.create_engine("sqlite://")
    with engine.begin() as connection:
        schema.prepare(connection)
        found = compare_metadata(MigrationContext.configure(connection), schema.tables)
        assert [one for one in found if one[1].name != "slicecast_version"] == []


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
