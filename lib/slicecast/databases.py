"""SQLite files that keep what people did: what was committed is on the disk, and a full disk hinders no reader."""

import errno
import sqlite3
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DatabaseError

FULL = {"SQLITE_FULL", "SQLITE_IOERR_SHMSIZE", "53100"}
"""What SQLite and PostgreSQL call a full disk; the second is said where the index of a log cannot grow."""


def is_disk_full(error: BaseException) -> bool:
    """Tell whether an error means that a disk is full, whatever library raised it."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    cause = error.orig if isinstance(error, DatabaseError) else error
    if isinstance(cause, sqlite3.Error) and "disk is full" in str(cause):
        return True
    return not FULL.isdisjoint([getattr(cause, name, None) for name in ("sqlite_errorname", "sqlstate")])


def open_sqlite(url: str, *, wait_s: float) -> Engine:
    """Open a SQLite file with a write-ahead log that is synced at every commit.

    One connection stays open. The last one that is closed removes the log, and to make it anew needs room on the disk,
    even where one only reads.

    Args:
        wait_s: how long a writer waits for others.
    """
    engine = sa.create_engine(
        url, poolclass=sa.pool.QueuePool, pool_size=1, max_overflow=-1, connect_args={"timeout": wait_s}
    )

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: Any, record: Any) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}").close()

    return engine
