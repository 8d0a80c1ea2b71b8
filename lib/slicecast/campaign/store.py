"""Where the events are kept: a table of any SQLAlchemy database; SQLite in WAL mode by default.

Deciding and writing happen in one transaction that lets no other writer in, so what a decision saw is still true
when its events are written. A process that is killed leaves all events of a decision or none.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from slicecast.campaign.events import GENESIS, Damage, Draft, Event, Kind, chain, find_damage
from slicecast.errors import ConfigError, ResourceError

BUSY_TIMEOUT_S = 60.0
"""How long a writer waits for the others; a decision takes milliseconds."""

ADVISORY_LOCK = 0x51CECA57
"""Of PostgreSQL: held by the one writer until its transaction ends."""

METADATA = sa.MetaData()

EVENTS = sa.Table(
    "slicecast_events",
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("when_s", sa.Double, nullable=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("case_name", sa.String(255), nullable=False),
    sa.Column("who", sa.String(255), nullable=False),
    sa.Column("data", sa.Text, nullable=False),
    sa.Column("previous", sa.String(64), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
)

HEAD = sa.Table(
    "slicecast_head",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
)
"""One row: the last event, so that events cut off the end are missed."""

Decide = Callable[[list[Event]], tuple[Iterable[Draft], float]]
"""Gets the events since the caller's last look; returns what to write, and when it happened."""


class EventStore:
    """An append-only list of events. Safe between threads and processes.

    Args:
        url: any SQLAlchemy URL, such as `sqlite:////data/campaign.db` or `postgresql+psycopg://host/name`.

    Raises:
        ConfigError: the URL cannot be used.
        ResourceError: the database cannot be opened.
    """

    def __init__(self, url: str) -> None:
        try:
            self._engine = _engine(url)
        except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ImportError) as error:
            raise ConfigError(
                f"The campaign's database '{url}' cannot be used: {error}. See docs/campaign.md."
            ) from error
        try:
            with self._writing() as connection:
                METADATA.create_all(connection)
        except sa.exc.OperationalError as error:
            raise ResourceError(f"The campaign's database {url} cannot be opened: {error.orig}.") from error

    def read(self, *, after: int = 0) -> list[Event]:
        """Return the events after a number, in order."""
        with self._engine.connect() as connection:
            return _read(connection, after)

    def append(self, decide: Decide, *, after: int = 0) -> tuple[list[Event], list[Event]]:
        """Let `decide` see what happened since `after`, and write what it returns, with no other writer in between.

        An error that `decide` raises leaves the list as it was.

        Returns:
            The events that `decide` saw, and those that were written.
        """
        with self._writing() as connection:
            seen = _read(connection, after)
            number, digest = _head(connection)
            drafts, when_s = decide(seen)
            written = chain(drafts, number=number, previous=digest, when_s=when_s)
            if written:
                connection.execute(EVENTS.insert(), [_row(event) for event in written])
                connection.execute(HEAD.delete())
                connection.execute(HEAD.insert(), {"id": 1, "number": written[-1].number, "digest": written[-1].digest})
        return seen, written

    def verify(self) -> Damage | None:
        """Check the whole chain; return the first damage, or None."""
        with self._engine.connect() as connection, connection.begin():
            if self._engine.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN")  # both reads see the same moment
            events = _read(connection, 0)
            number, digest = _head(connection)
        damage = find_damage(events)
        last = (events[-1].number, events[-1].digest) if events else (0, GENESIS)
        if damage is None and last != (number, digest):
            what = f"the chain ends at event {last[0]}, but {number} were written: the end was cut off or replaced"
            return Damage(last[0] + 1, what)
        return damage

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._engine.connect() as connection, connection.begin():
            if self._engine.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            elif self._engine.dialect.name == "postgresql":
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
            yield connection


def sqlite_url(file: Path) -> str:
    """Return the URL of a SQLite file."""
    return f"sqlite:///{file}"


def _engine(url: str) -> Engine:
    if sa.make_url(url).get_backend_name() != "sqlite":
        return sa.create_engine(url, pool_pre_ping=True)
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S}, poolclass=sa.pool.NullPool)

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # transactions are begun by us, not by the driver
        connection.execute("PRAGMA journal_mode=WAL").close()
        connection.execute("PRAGMA synchronous=FULL").close()

    return engine


def _read(connection: Connection, after: int) -> list[Event]:
    rows = connection.execute(sa.select(EVENTS).where(EVENTS.c.number > after).order_by(EVENTS.c.number))
    return [
        Event(row.number, row.when_s, Kind(row.kind), row.case_name, row.who, json.loads(row.data), *row[6:])
        for row in rows
    ]


def _head(connection: Connection) -> tuple[int, str]:
    row = connection.execute(sa.select(HEAD.c.number, HEAD.c.digest)).first()
    return (row.number, row.digest) if row else (0, GENESIS)


def _row(event: Event) -> dict[str, Any]:
    return {
        "number": event.number,
        "when_s": event.when_s,
        "kind": str(event.kind),
        "case_name": event.case,
        "who": event.who,
        "data": json.dumps(event.data, sort_keys=True),
        "previous": event.previous,
        "digest": event.digest,
    }
