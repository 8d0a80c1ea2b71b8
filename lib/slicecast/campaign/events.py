"""What can happen in a campaign, the hash chain that shows later changes, and where it is kept.

Each event's digest covers its own fields and the digest before it (SHA-256 of canonical JSON). Times are seconds
since 1970, UTC. An event is never changed; a mistake is answered by another event.

The chain is a table of any SQLAlchemy database; SQLite in WAL mode by default. Deciding and writing happen in one
transaction that lets no other writer in, so what a decision saw is still true when its events are written. A process
that is killed leaves all events of a decision or none.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from slicecast.databases import Schema, open_sqlite
from slicecast.errors import ConfigError, ResourceError

GENESIS = "0" * 64  # The digest before the first event


class Kind(StrEnum):
    """What an event says; `data` in brackets."""

    ADDED = "added"  # the case is part of the campaign (labelled: it had a final label before)
    GOLD = "gold"  # the case's truth is known and hidden (truth_sha256)
    LEASED = "leased"  # a person works on it (task, until, reason, strategy, address)
    RENEWED = "renewed"  # still at it (until)
    RELEASED = "released"  # handed back without a label
    PREDICTED = "predicted"  # a model answered (model, model_hash, prompts, confidence, next_slice)
    SLICE_ASKED = "slice-asked"  # a slice to annotate next was chosen by a person (slice, axis)
    SUBMITTED = "submitted"  # a label was saved (task, tag, version, sha256, model, model_hash, active_s)
    SKIPPED = "skipped"  # not by this person (why)
    FLAGGED = "flagged"  # needs a reviewer's look (why)
    APPROVED = "approved"  # by a reviewer
    REJECTED = "rejected"  # by a reviewer; to be done again (why)
    REOPENED = "reopened"  # its label was removed
    COMPARED = "compared"  # two labels of the case were compared (against, dice, nsd, hd95_mm, ...)
    PROMOTED = "promoted"  # of no case: fine-tuned weights are used (model, sha256, before, labels, verdict)
    ROLLED_BACK = "rolled-back"  # of no case: earlier weights are used again (model, sha256, before)


OF_NO_CASE = (Kind.PROMOTED, Kind.ROLLED_BACK)


@dataclass(frozen=True, slots=True)
class Draft:
    """An event before it has its place in the chain."""

    kind: Kind
    case: str  # to which image; "" for what concerns the campaign as a whole
    who: str  # the person, or `server`
    data: Mapping[str, Any] = field(default_factory=dict)  # details, as JSON values


@dataclass(frozen=True, slots=True)
class Event:
    """A link of the chain."""

    number: int  # its place, from 1
    when_s: float  # seconds since 1970
    kind: Kind
    case: str
    who: str
    data: Mapping[str, Any]
    previous: str  # digest of the event before, GENESIS for the first
    digest: str  # of all other fields


@dataclass(frozen=True, slots=True)
class Damage:
    """Where the chain is broken, and how."""

    number: int
    what: str


def chain(drafts: Iterable[Draft], *, number: int, previous: str, when_s: float) -> list[Event]:
    """Give drafts their places after event `number`, whose digest is `previous`."""
    events = []
    for place, draft in enumerate(drafts, start=number + 1):
        data = json.loads(json.dumps(dict(draft.data), allow_nan=False))
        fields = {
            "number": place,
            "when_s": when_s,
            "kind": draft.kind,
            "case": draft.case,
            "who": draft.who,
            "data": data,
        }
        digest = digest_of(fields, previous)
        events.append(Event(**fields, previous=previous, digest=digest))
        previous = digest
    return events


def digest_of(fields: Mapping[str, Any], previous: str) -> str:
    """Return the SHA-256 that binds an event's fields to the event before."""
    text = json.dumps({**fields, "previous": previous}, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def find_damage(events: Iterable[Event]) -> Damage | None:
    """Check the chain; return the first place where it does not hold, or None."""
    expected, previous = 1, GENESIS
    for event in events:
        if event.number != expected:
            return Damage(expected, f"event {expected} is missing (the next one there is {event.number})")
        if event.previous != previous:
            return Damage(expected, f"event {expected} does not follow the one before it: removed or reordered")
        fields = {key: value for key, value in asdict(event).items() if key not in ("previous", "digest")}
        if digest_of(fields, previous) != event.digest:
            return Damage(expected, f"event {expected} was changed: its digest is not that of its content")
        expected, previous = expected + 1, event.digest
    return None


BUSY_TIMEOUT_S = 60.0  # How long a writer waits for the others; a decision takes milliseconds
ADVISORY_LOCK = 0x51CECA57  # Of PostgreSQL: held by the one writer until its transaction ends

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

SCHEMA = Schema(METADATA, Path(__file__).parent / "revisions")

Decide = Callable[[list[Event]], tuple[Iterable[Draft], float]]
"""Gets the events since the caller's last look; returns what to write, and when it happened."""


class EventStore:
    """An append-only list of events. Safe between threads and processes.

    Args:
        url: any SQLAlchemy URL, such as `sqlite:////data/campaign.db` or `postgresql+psycopg://host/name`.
        upgrade: bring an earlier version's tables to this version's.

    Raises:
        ConfigError: the URL cannot be used.
        ResourceError: the database cannot be opened, or is another version's.
    """

    def __init__(self, url: str, *, upgrade: bool = False) -> None:
        try:
            self._engine = _engine(url)
        except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ImportError) as error:
            raise ConfigError(
                f"The campaign's database '{url}' cannot be used: {error}. See docs/campaign.md."
            ) from error
        try:
            with self._writing() as connection:
                SCHEMA.prepare(connection, upgrade=upgrade)
        except sa.exc.DatabaseError as error:
            self.close()
            raise ResourceError(f"The campaign's database {url} cannot be opened: {error.orig}.") from error
        except ResourceError:
            self.close()
            raise

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
            rows, (number, digest) = _rows(connection, 0), _head(connection)
        events = list[Event]()
        for row in rows:
            try:
                events.append(_event(row))
            except ValueError as error:  # a word that is no kind, or details that are no JSON
                return Damage(row.number, f"event {row.number} was changed: {error}")
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
    engine = open_sqlite(url, wait_s=BUSY_TIMEOUT_S)

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # transactions are begun by us, not by the driver

    return engine


def _read(connection: Connection, after: int) -> list[Event]:
    return [_event(row) for row in _rows(connection, after)]


def _rows(connection: Connection, after: int) -> Sequence[Any]:
    found = sa.select(EVENTS).where(EVENTS.c.number > after).order_by(EVENTS.c.number)
    return connection.execute(found).all()


def _event(row: Any) -> Event:
    return Event(row.number, row.when_s, Kind(row.kind), row.case_name, row.who, json.loads(row.data), *row[6:])


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
