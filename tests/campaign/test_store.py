"""Nothing is lost and nothing changed, whatever happens to the processes that write."""

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from slicecast.campaign.events import Draft, Kind
from slicecast.campaign.store import EventStore
from slicecast.errors import ConfigError, ResourceError


def write(store, *names, who="ann"):
    return store.append(lambda seen: ([Draft(Kind.ADDED, name, who) for name in names], 1.0))[1]


def sql(url, statement):
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    with connection:
        connection.execute(statement)
    connection.close()


def test_what_was_written_is_read(store, url):
    write(store, "a", "b")
    write(store, "c")
    assert [event.case for event in EventStore(url).read()] == ["a", "b", "c"]
    assert [event.case for event in store.read(after=2)] == ["c"] and store.verify() is None


def test_a_decision_sees_what_happened_since(store, url):
    write(store, "a")
    write(EventStore(url), "b")
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


def test_threads_lose_no_event(store):
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: write(store, f"case-{n}"), range(100)))
    assert len({event.case for event in store.read()}) == 100 and store.verify() is None


def write_many(url, name, count):
    store = EventStore(url)
    for number in range(count):
        write(store, f"{name}-{number}")


def test_processes_lose_no_event(store, url):
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        pool.starmap(write_many, [(url, name, 20) for name in "abc"])
    assert len({event.case for event in store.read()}) == 60 and store.verify() is None


WRITER = """
import sys
from slicecast.campaign.events import Draft, Kind
from slicecast.campaign.store import EventStore
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


def test_the_file_is_in_wal_mode(store, url):
    write(store, "a")
    assert Path(url.removeprefix("sqlite:///") + "-wal").exists() or journal(url) == "wal"


def journal(url):
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    connection.close()
    return mode
