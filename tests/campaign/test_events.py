"""The chain holds, and shows every change."""

import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from slicecast.campaign import events
from slicecast.campaign.campaign import Campaign, Choice
from slicecast.campaign.events import GENESIS, Draft, EventStore, Kind, chain, find_damage, sqlite_url
from slicecast.campaign.settings import CampaignSettings
from slicecast.demo.server_process import free_port
from slicecast.errors import ConfigError, ResourceError, UpgradeNeeded

EVENTS = chain(
    [Draft(Kind.ADDED, name, "server", {"labelled": False}) for name in "abcdef"],
    number=0,
    previous=GENESIS,
    when_s=1.5,
)


def test_an_untouched_chain_holds():
    assert find_damage(EVENTS) is None and find_damage([]) is None


def test_a_chain_continues():
    later = chain([Draft(Kind.APPROVED, "a", "rita")], number=6, previous=EVENTS[-1].digest, when_s=2.0)
    assert find_damage([*EVENTS, *later]) is None and later[0].number == 7


@pytest.mark.parametrize(
    "change",
    [{"who": "eve"}, {"when_s": 1.6}, {"case": "z"}, {"data": {"labelled": True}}, {"kind": Kind.APPROVED}],
)
def test_a_changed_event_is_found(change):
    events = [*EVENTS]
    events[2] = replace(events[2], **change)
    assert find_damage(events).number == 3


@given(st.integers(0, 4))
def test_a_removed_event_is_found(place):
    assert find_damage([*EVENTS[:place], *EVENTS[place + 1 :]]).number == place + 1


@given(st.permutations(EVENTS))
def test_another_order_is_found(events):
    assert (find_damage(events) is None) is (events == EVENTS)


def test_renumbering_does_not_hide_a_removed_event():
    events = [replace(event, number=place) for place, event in enumerate(EVENTS[1:], start=1)]
    assert find_damage(events).number == 1


def test_no_number_is_not_json():
    with pytest.raises(ValueError, match="JSON"):
        chain([Draft(Kind.COMPARED, "a", "server", {"hd95_mm": float("nan")})], number=0, previous=GENESIS, when_s=0)


USER = "postgres" if os.getuid() == 0 else None
"""PostgreSQL refuses to run as root."""


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """A PostgreSQL of our own on loopback; the URL of its empty database."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin")) or [Path(shutil.which("initdb") or "/-").parent]
    programs = places[-1]
    if not (programs / "initdb").exists():
        pytest.skip("no PostgreSQL; on Debian: apt-get install postgresql")
    folder, port = Path(tempfile.mkdtemp(prefix="slicecast-pg-")), free_port()
    if USER:
        shutil.chown(folder, USER)
    data = ["-D", str(folder / "data")]
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"

    def call(*command: str) -> None:
        subprocess.run(command, user=USER, cwd=folder, check=True, stdout=subprocess.DEVNULL, timeout=300)

    try:
        call(str(programs / "initdb"), *data, "-A", "trust", "-U", "slicecast")
        call(str(programs / "pg_ctl"), *data, "-w", "-t", "240", "-l", str(folder / "log"), "-o", options, "start")
        yield f"postgresql+psycopg://slicecast@127.0.0.1:{port}/postgres"
        call(str(programs / "pg_ctl"), *data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def url(request, tmp_path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "campaign.db")
    server = request.getfixturevalue("postgresql")
    sql(server, "DROP TABLE IF EXISTS slicecast_events, slicecast_head, slicecast_version")
    return server


def write(store, *names):
    return store.append(lambda seen: ([Draft(Kind.ADDED, name, "ann") for name in names], 1.0))[1]


def sql(url, statement):
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


@pytest.fixture
def other(url) -> Iterator[EventStore]:
    """Another server's store of the same events."""
    store = EventStore(url)
    yield store
    store.close()


def test_what_was_written_is_read(store, other):
    write(store, "a", "b")
    write(store, "c")
    assert [event.case for event in other.read()] == ["a", "b", "c"]
    assert [event.case for event in store.read(after=2)] == ["c"] and store.verify() is None


def test_what_is_written_is_synced_to_the_disk(store, url):
    if url.startswith("sqlite"):  # by SQLite's setting, 2 for FULL; PostgreSQL does by itself
        with store._engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


def test_a_decision_sees_what_happened_since(store, other):
    write(store, "a")
    write(other, "b")
    seen, written = store.append(lambda seen: ([Draft(Kind.ADDED, "c", "ann")], 2.0), after=1)
    assert [event.case for event in seen] == ["b"] and written[0].number == 3


def test_an_error_in_the_decision_writes_nothing(store):
    def fail(seen):
        raise ResourceError("no")

    with pytest.raises(ResourceError):
        store.append(fail)
    write(store, "a")
    assert len(store.read()) == 1 and store.verify() is None


@pytest.mark.parametrize(
    ("statement", "number"),
    [
        ("UPDATE slicecast_events SET who = 'eve' WHERE number = 2", 2),
        ("UPDATE slicecast_events SET data = '{\"x\": 1}' WHERE number = 3", 3),
        ("UPDATE slicecast_events SET when_s = 0 WHERE number = 1", 1),
        ("DELETE FROM slicecast_events WHERE number = 2", 2),
        ("DELETE FROM slicecast_events WHERE number = 4", 4),
        ("DELETE FROM slicecast_events", 1),
        ("UPDATE slicecast_events SET number = -1 WHERE number = 2", 2),
        ("UPDATE slicecast_events SET number = 9 WHERE number = 4", 4),
    ],
)
def test_verify_finds(store, url, statement, number):
    write(store, *"abcd")
    sql(url, statement)
    assert store.verify().number == number


def test_verify_finds_two_events_in_each_others_place(store, url):
    write(store, *"abcd")
    for place, other in ((2, 20), (3, 2), (20, 3)):
        sql(url, f"UPDATE slicecast_events SET number = {other} WHERE number = {place}")
    assert store.verify().number == 2


def test_a_url_that_is_none():
    with pytest.raises(ConfigError, match=r"docs/campaign\.md"):
        EventStore("nothing://here")


def test_a_database_that_cannot_be_opened(tmp_path):
    with pytest.raises(ResourceError, match="cannot be opened"):
        EventStore(f"sqlite:///{tmp_path}/missing/campaign.db")


def test_a_database_without_a_version_is_brought_to_a_later_one(url, tmp_path, monkeypatch):
    """As Slicecast 0.1.0 left it: SQLite, and PostgreSQL."""
    EventStore(url).close()
    sql(url, "DROP TABLE slicecast_version")
    folder = shutil.copytree(events.SCHEMA.revisions, tmp_path / "revisions")
    step = 'op.add_column("slicecast_head", sa.Column("note", sa.String))'
    (folder / "later.py").write_text(
        f"'A note.'\nimport sqlalchemy as sa\nfrom alembic import op\n\nrevision, down_revision = '0002', '0001'\n\n\n"
        f"def upgrade():\n    {step}\n"
    )
    monkeypatch.setattr(events, "SCHEMA", replace(events.SCHEMA, revisions=folder))
    with pytest.raises(UpgradeNeeded, match=r"lacks: 0002 A note\. Stop all servers"):
        EventStore(url)
    store = EventStore(url, upgrade=True)
    write(store, "a")
    sql(url, "UPDATE slicecast_head SET note = 'here'")
    assert len(store.read()) == 1 and store.verify() is None
    store.close()
    sql(url, "UPDATE slicecast_version SET version_num = '0099'")
    with pytest.raises(ResourceError, match="A later version"):
        EventStore(url)


def test_threads_lose_no_event(store):
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: write(store, f"case-{n}"), range(100)))
    assert len({event.case for event in store.read()}) == 100 and store.verify() is None


def write_many(url, name, count):
    store = EventStore(url)
    for number in range(count):
        write(store, f"{name}-{number}")
    store.close()


def test_processes_lose_no_event(store, url):
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        pool.starmap(write_many, [(url, name, 20) for name in "abc"])
    assert len({event.case for event in store.read()}) == 60 and store.verify() is None


WRITER = """
import sys
from slicecast.campaign.events import Draft, Kind
from slicecast.campaign.events import EventStore
store = EventStore(sys.argv[1])
number = 0
while True:
    pair = [Draft(Kind.ADDED, f"case-{number}", "ann"), Draft(Kind.RELEASED, f"case-{number}", "ann")]
    store.append(lambda seen: (pair, 1.0), after=number)
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
    number += 1
"""


@pytest.mark.parametrize("delay_s", [0.0, 0.003, 0.011, 0.05])
def test_kill_9_while_writing(store, url, delay_s):
    """What the process had reported is there, whole decisions only, and the chain holds and goes on."""
    with subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True) as writer:
        reported = [writer.stdout.readline() for _ in range(5)]
        time.sleep(delay_s)
        os.kill(writer.pid, signal.SIGKILL)
        reported += writer.stdout.readlines()
    last = int([line for line in reported if line.endswith("\n")][-1])
    events = store.read()
    assert len(events) % 2 == 0 and len(events) >= 2 * (last + 1)
    write(store, "after")
    assert store.verify() is None and store.read()[-1].case == "after"


def test_two_servers_lease_different_cases(url):
    """Each server has a campaign of its own on the same events."""
    stores = [EventStore(url) for _ in range(2)]
    rules = CampaignSettings(second_share=0.0, gold_share=0.0)
    campaigns = [Campaign(store, rules=rules, rng=random.Random(0)) for store in stores]
    for campaign in campaigns:
        campaign.add(dict.fromkeys("abcdef", False))

    def ask(number: int) -> str:
        ranking = lambda names: [Choice(name, "by name") for name in sorted(names)]  # noqa: E731
        return campaigns[number % 2].next_case(f"person {number}", available=list("abcdef"), ranking=ranking).case

    with ThreadPoolExecutor(6) as pool:
        given = list(pool.map(ask, range(6)))
    assert sorted(given) == list("abcdef")
    assert stores[0].verify() is None
    for store in stores:
        store.close()


def test_the_file_is_in_wal_mode(tmp_path):
    store = EventStore(sqlite_url(tmp_path / "campaign.db"))
    write(store, "a")
    store.close()
    connection = sqlite3.connect(tmp_path / "campaign.db")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
