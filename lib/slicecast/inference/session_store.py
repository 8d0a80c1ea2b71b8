"""Stores sessions in one SQLite file, to which records are only ever added; reads and writes their logs as JSON lines.

A record is on the disk before a call returns (write-ahead log, synced at every commit). Its number is part of the
table's key, so of two writers that add the same number one fails.
"""

import json
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy.exc import IntegrityError

from slicecast.config import build
from slicecast.databases import Schema, open_sqlite
from slicecast.engine.session import Record, decode_record, encode_record
from slicecast.errors import Conflict, InputError, PromptError, UnknownSession

FILE = "sessions.sqlite"

BUSY_TIMEOUT_S = 30  # How long a writer waits for another process's transaction

_METADATA = sql.MetaData()

_SESSIONS = sql.Table(
    "sessions",
    _METADATA,
    sql.Column("id", sql.String, primary_key=True),
    sql.Column("image_id", sql.String, nullable=False),
    sql.Column("image", sql.String, nullable=False),
    sql.Column("model", sql.String, nullable=False),
    sql.Column("axis", sql.String, nullable=False),
    sql.Column("window", sql.String, nullable=False),
    sql.Column("options", sql.JSON, nullable=False),
    sql.Column("owner", sql.String, nullable=False),
    sql.Column("created_at", sql.Float, nullable=False),
    sql.Column("used_at", sql.Float, nullable=False),
    sql.Column("closed_at", sql.Float),
)

_RECORDS = sql.Table(
    "records",
    _METADATA,
    sql.Column("session", sql.ForeignKey("sessions.id"), primary_key=True),
    sql.Column("number", sql.Integer, primary_key=True),
    sql.Column("at", sql.Float, nullable=False),
    sql.Column("record", sql.Text, nullable=False),
)

SCHEMA = Schema(_METADATA, Path(__file__).parent / "revisions")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionHeader:
    """What a session was opened with."""

    id: str  # names it
    image_id: str  # the image as clients know it
    image: Path  # file or DICOM folder
    model: str  # the model that answers
    axis: str  # ``axial``, ``coronal`` or ``sagittal``
    window: str  # as asked for
    options: dict[str, Any]  # settings of the engine
    owner: str  # who opened it; empty without logins
    created_at: datetime  # UTC
    used_at: datetime  # UTC, of the last change or question
    closed_at: datetime | None = None  # UTC, or None


class SessionStore:
    """Sessions in a folder; safe between threads and processes.

    Args:
        folder: made where it is missing.
        locate: the file of an image by its id, asked where it is no longer where a session found it.
        upgrade: bring an earlier version's tables to this version's.

    Raises:
        ResourceError: the tables are another version's.
    """

    def __init__(self, folder: Path, *, locate: Callable[[str], Path] | None = None, upgrade: bool = False) -> None:
        self._locate = locate
        folder.mkdir(parents=True, exist_ok=True)
        self._engine = open_sqlite(f"sqlite:///{folder / FILE}", wait_s=BUSY_TIMEOUT_S)
        weakref.finalize(self, self._engine.dispose)
        with self._engine.begin() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            SCHEMA.prepare(connection, upgrade=upgrade)

    def create(self, header: SessionHeader) -> None:
        """Keep a new session."""
        with self._engine.begin() as connection:
            connection.execute(_SESSIONS.insert().values(_row_of(header)))

    def header(self, session_id: str) -> SessionHeader:
        """Return what a session was opened with; raises UnknownSession if there is none of that id."""
        with self._engine.connect() as connection:
            row = connection.execute(_SESSIONS.select().where(_SESSIONS.c.id == session_id)).one_or_none()
        if row is None:
            raise UnknownSession(f"There is no session '{session_id}'. Open one, or list those that are open.")
        header = _header_of(row)
        if self._locate is None or header.image.exists():
            return header
        return replace(header, image=self._locate(header.image_id))

    def open_headers(self) -> list[SessionHeader]:
        """Return the sessions that are not closed, oldest first."""
        query = _SESSIONS.select().where(_SESSIONS.c.closed_at.is_(None)).order_by(_SESSIONS.c.created_at)
        with self._engine.connect() as connection:
            return [_header_of(row) for row in connection.execute(query)]

    def records(self, session_id: str) -> tuple[Record, ...]:
        """Return a session's records, oldest first; raises ConfigError if one was written by a later version."""
        query = sql.select(_RECORDS.c.record).where(_RECORDS.c.session == session_id).order_by(_RECORDS.c.number)
        with self._engine.connect() as connection:
            return tuple(map(decode_record, connection.execute(query).scalars()))

    def append(self, session_id: str, record: Record, *, number: int, at: datetime) -> None:
        """Add a record; when this returns it is on the disk.

        Raises:
            Conflict: that number exists, because another writer was faster.
        """
        row = {"session": session_id, "number": number, "at": at.timestamp(), "record": encode_record(record)}
        try:
            with self._engine.begin() as connection:
                connection.execute(_RECORDS.insert().values(row))
                connection.execute(_update(session_id, used_at=at.timestamp()))
        except IntegrityError as error:
            raise Conflict(f"Session '{session_id}' was changed meanwhile. Read its state and try again.") from error

    def touch(self, session_id: str, at: datetime) -> None:
        """Note that a session was used."""
        with self._engine.begin() as connection:
            connection.execute(_update(session_id, used_at=at.timestamp()))

    def close(self, session_id: str, at: datetime) -> None:
        """Note that a session has ended; its log is kept."""
        with self._engine.begin() as connection:
            connection.execute(_update(session_id, used_at=at.timestamp(), closed_at=at.timestamp()))


def _update(session_id: str, **values: float) -> sql.Update:
    return _SESSIONS.update().where(_SESSIONS.c.id == session_id).values(**values)


def _row_of(header: SessionHeader) -> dict[str, Any]:
    values = {column.name: getattr(header, column.name) for column in _SESSIONS.columns}
    times = {name: value.timestamp() for name, value in values.items() if isinstance(value, datetime)}
    return {**values, **times, "image": str(header.image)}


def _header_of(row: Any) -> SessionHeader:
    values = dict(row._mapping)
    times = {n: datetime.fromtimestamp(v, UTC) for n, v in values.items() if n.endswith("_at") and v is not None}
    return SessionHeader(**{**values, **times, "image": Path(values["image"])})


@dataclass(frozen=True, slots=True)
class SessionLog:
    """A session outside of the server, to be archived or replayed."""

    header: SessionHeader  # what it was opened with
    records: tuple[Record, ...]  # oldest first

    def until(self, revision: int) -> "SessionLog":
        """Return the log as it was at a revision; raises PromptError if it never was there."""
        if not 0 <= revision <= len(self.records):
            raise PromptError(f"The session has revisions 0 to {len(self.records)}, not {revision}.")
        return replace(self, records=self.records[:revision])


def stored_log(folder: Path, session_id: str) -> SessionLog:
    """Read a session, also a closed one, from the folder of a server's sessions.

    Raises:
        UnknownSession: it is not there.
    """
    if not (folder / FILE).is_file():
        raise UnknownSession(f"There are no sessions in {folder}. Give the folder that holds {FILE}.")
    store = SessionStore(folder)
    return SessionLog(store.header(session_id), store.records(session_id))


def write_log(path: Path, log: SessionLog) -> None:
    """Write a log as JSON lines: the header, then one record a line."""
    lines = [json.dumps(asdict(log.header), default=str), *map(encode_record, log.records)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_log(path: Path) -> SessionLog:
    """Read a log that :func:`write_log` wrote; raises InputError if it is not one."""
    try:
        header, *records = path.read_text(encoding="utf-8").splitlines()
        return SessionLog(_header_of_json(json.loads(header)), tuple(map(decode_record, records)))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path} is not a session's log ({error}). Give one that 'slicecast replay --log' wrote."
        ) from error


def _header_of_json(content: dict[str, Any]) -> SessionHeader:
    times = {n: datetime.fromisoformat(v) for n, v in content.items() if n.endswith("_at") and v is not None}
    return build(SessionHeader, {**content, **times, "image": Path(content["image"])}, where="a session's log")


class SessionLocks:
    """One lock per session, for as long as it is held."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._users: Counter[str] = Counter()

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Hold the lock of one session."""
        with self._guard:
            lock = self._locks.setdefault(name, threading.Lock())
            self._users[name] += 1
        try:
            with lock:
                yield
        finally:
            with self._guard:
                self._users[name] -= 1
                if not self._users[name]:
                    del self._users[name], self._locks[name]
