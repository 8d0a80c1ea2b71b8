"""The campaign's events in a real PostgreSQL: what holds for SQLite holds there, between threads and processes."""

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from slicecast.campaign.campaign import Campaign, Choice
from slicecast.campaign.events import Draft, Kind
from slicecast.campaign.settings import CampaignSettings
from slicecast.campaign.store import EventStore
from slicecast.demo.server_process import free_port

pytestmark = pytest.mark.slow

USER = "postgres" if os.getuid() == 0 else None
"""PostgreSQL refuses to run as root."""
WRITER = """
import sys
from slicecast.campaign.events import Draft, Kind
from slicecast.campaign.store import EventStore
store = EventStore(sys.argv[1])
while True:
    pair = [Draft(Kind.ADDED, "case", "ann"), Draft(Kind.RELEASED, "case", "ann")]
    print(store.append(lambda seen: (pair, 1.0), after=10**6)[1][-1].number, flush=True)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
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


@pytest.fixture
def url(server) -> str:
    """The database, without our tables."""
    engine = sa.create_engine(server)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE IF EXISTS slicecast_events, slicecast_head"))
    engine.dispose()
    return server


@pytest.fixture
def store(url) -> Iterator[EventStore]:
    store = EventStore(url)
    yield store
    store.close()


def write(store, *names):
    return store.append(lambda seen: ([Draft(Kind.ADDED, name, "ann") for name in names], 1.0))[1]


def write_many(url, name, count):
    store = EventStore(url)
    for number in range(count):
        write(store, f"{name}-{number}")
    store.close()


def test_threads_and_processes_lose_no_event(store, url):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: write(store, f"thread-{n}"), range(40)))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.starmap(write_many, [(url, name, 20) for name in "ab"])
    assert len({event.case for event in store.read()}) == 80 and store.verify() is None


def test_damage_is_found(store, url):
    write(store, *"abcd")
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE slicecast_events SET who = 'eve' WHERE number = 2"))
    engine.dispose()
    assert store.verify().number == 2


def test_kill_9_while_writing(store, url):
    with subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True) as writer:
        reported = [writer.stdout.readline() for _ in range(5)]
        time.sleep(0.02)
        os.kill(writer.pid, signal.SIGKILL)
        reported += writer.stdout.readlines()
    last = int([line for line in reported if line.endswith("\n")][-1])
    events = store.read()
    assert len(events) % 2 == 0 and len(events) >= last
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
