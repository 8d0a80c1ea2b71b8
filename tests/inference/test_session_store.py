import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from slicecast.engine.session import Edit, Redo, Remove, Undo
from slicecast.errors import Conflict, UnknownSession
from slicecast.inference.session_store import FILE, SessionHeader, SessionStore

FIRST = Edit(())
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
HEADER = SessionHeader(
    id="s1",
    image_id="ct_1",
    image=Path("/studies/ct_1.nii.gz"),
    model="sam2_nano",
    axis="axial",
    window="auto",
    options={"zoom": "auto"},
    owner="ana",
    created_at=NOW,
    used_at=NOW,
)


@pytest.fixture
def store(tmp_path):
    made = SessionStore(tmp_path / "sessions")
    made.create(HEADER)
    return made


def test_a_session_is_found_again_by_another_store(store, tmp_path):
    later = NOW + timedelta(minutes=1)
    store.append("s1", FIRST, number=0, at=NOW)
    store.append("s1", Undo(), number=1, at=later)
    other = SessionStore(tmp_path / "sessions")
    assert other.header("s1") == replace(HEADER, used_at=later)
    assert other.records("s1") == (FIRST, Undo())


def test_a_closed_session_is_listed_no_more_but_kept(store):
    store.create(replace(HEADER, id="s2", created_at=NOW + timedelta(1)))
    assert [h.id for h in store.open_headers()] == ["s1", "s2"]
    store.close("s1", NOW)
    assert [h.id for h in store.open_headers()] == ["s2"] and store.header("s1").closed_at == NOW


def test_no_record_is_ever_replaced(store):
    store.append("s1", FIRST, number=0, at=NOW)
    with pytest.raises(Conflict, match="changed meanwhile"):
        store.append("s1", Redo(), number=0, at=NOW)
    assert store.records("s1") == (FIRST,)


def test_an_unknown_session_is_named(store):
    with pytest.raises(UnknownSession, match="no session 's9'"):
        store.header("s9")


def test_of_threads_that_write_the_same_number_one_wins(store):
    won = []

    def write(n):
        try:
            store.append("s1", Edit((Remove(f"p{n}"),)), number=0, at=NOW)
            won.append(n)
        except Conflict:
            pass

    threads = [threading.Thread(target=write, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and store.records("s1") == (Edit((Remove(f"p{won[0]}"),)),)


def test_what_is_told_is_synced_to_the_disk(store):
    """A power cut loses nothing: no test can make one, so this looks at SQLite's setting, 2 for FULL."""
    with store._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


def test_what_was_told_survives_a_kill(store, tmp_path):
    """The writer is killed right after it was told that its record is kept."""
    code = f"""
import os, sys, time
from datetime import UTC, datetime
from pathlib import Path
from slicecast.engine.session import (Edit, Remove)
from slicecast.inference.session_store import SessionStore
store = SessionStore(Path({str(tmp_path / "sessions")!r}))
for number in range(50):
    store.append("s1", Edit((Remove(f"p{{number}}"),)), number=number, at=datetime.now(UTC))
    print(number, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as writer:
        told = next(n for line in writer.stdout if (n := int(line)) >= 20)
        os.kill(writer.pid, signal.SIGKILL)
        told = max([told, *(int(line) for line in writer.stdout)])
    kept = SessionStore(tmp_path / "sessions").records("s1")
    assert kept[: told + 1] == tuple(Edit((Remove(f"p{n}"),)) for n in range(told + 1))
    assert (tmp_path / "sessions" / FILE).is_file()
