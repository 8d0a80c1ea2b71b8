"""Databases that keep what people did: their tables by version; in SQLite, what was committed is on the disk, and a
full disk hinders no reader."""

import errno
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DatabaseError

from slicecast.errors import ResourceError, UpgradeNeeded

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


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables of a database, which knows its version."""

    tables: sa.MetaData
    revisions: Path  # folder of the Alembic revisions that lead to them

    def prepare(self, connection: Connection, *, upgrade: bool = False) -> None:
        """Make the tables of a new database; of an older one see that they are this version's.

        One that does not know its version is as Slicecast 0.1.0 left it, and is of the first revision.

        Args:
            connection: in a transaction that lets no other writer in.
            upgrade: carry out the revisions that an older one lacks.

        Raises:
            UpgradeNeeded: it lacks some.
            ResourceError: a later version has changed it.
        """
        script = ScriptDirectory(str(self.revisions), version_locations=[str(self.revisions)])
        steps = {"version_table": "slicecast_version", "fn": lambda found, _: script._upgrade_revs("head", found)}
        context = MigrationContext.configure(connection, opts=steps)
        new = not any(map(sa.inspect(connection).has_table, self.tables.tables))
        if not new and context.get_current_revision() is None:
            context.stamp(script, str(script.get_base()))
        name = connection.engine.url.database
        try:
            lacking = list(script.iterate_revisions("head", context.get_current_revision() or "base"))
        except RevisionError as error:
            raise ResourceError(
                f"A later version of Slicecast has changed the database {name}. Install that version or a later one, "
                "or restore a backup from before."
            ) from error
        if lacking and not (new or upgrade):
            what = "; ".join(f"{one.revision} {one.doc.rstrip('.')}" for one in reversed(lacking))
            raise UpgradeNeeded(
                f"The database {name} is an earlier version's and lacks: {what}. Stop all servers, make a backup, "
                "and run `slicecast upgrade`."
            )
        with Operations.context(context):
            context.run_migrations()
