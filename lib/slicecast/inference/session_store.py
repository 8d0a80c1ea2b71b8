"""Where sessions survive a crash: one SQLite file, to which records are only ever added.

A record is on the disk before anybody is told of it (write-ahead log, synced at every commit), and its number is
part of the table's key, so two writers can never both be the next.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy.exc import IntegrityError

from slicecast.errors import Conflict, UnknownSession

FILE = "sessions.sqlite"

BUSY_TIMEOUT_S = 30
"""How long a writer waits for another process's transaction."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionHeader:
    """What a session was opened with.

    Args:
        id: names it.
        image_id: the image as clients know it.
        image: file or DICOM folder.
        model: the model that answers.
        axis: ``axial``, ``coronal`` or ``sagittal``.
        window: as asked for.
        options: settings of the engine.
        owner: who opened it; empty where nobody logs in.
        created_at: UTC.
        used_at: UTC, of the last change or question.
        closed_at: UTC, or None.
    """

    id: str
    image_id: str
    image: Path
    model: str
    axis: str
    window: str
    options: dict[str, Any]
    owner: str
    created_at: datetime
    used_at: datetime
    closed_at: datetime | None = None


class SessionStore:
    """Sessions in a folder; safe between threads and processes.

    Args:
        folder: made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # No pool: a connection costs less than a millisecond, and none is left behind in a thread that ended.
        self._engine = sql.create_engine(
            f"sqlite:///{folder / FILE}", poolclass=sql.NullPool, connect_args={"timeout": BUSY_TIMEOUT_S}
        )
        sql.event.listen(self._engine, "connect", _make_durable)
        _METADATA.create_all(self._engine)

    def create(self, header: SessionHeader) -> None:
        """Keep a new session."""
        with self._engine.begin() as connection:
            connection.execute(_SESSIONS.insert().values(_row_of(header)))

    def header(self, session_id: str) -> SessionHeader:
        """Return what a session was opened with.

        Raises:
            UnknownSession: there is none of that id.
        """
        with self._engine.connect() as connection:
            row = connection.execute(_SESSIONS.select().where(_SESSIONS.c.id == session_id)).one_or_none()
        if row is None:
            raise UnknownSession(f"There is no session '{session_id}'. Open one, or list those that are open.")
        return _header_of(row)

    def open_headers(self) -> list[SessionHeader]:
        """Return the sessions that are not closed, oldest first."""
        query = _SESSIONS.select().where(_SESSIONS.c.closed_at.is_(None)).order_by(_SESSIONS.c.created_at)
        with self._engine.connect() as connection:
            return [_header_of(row) for row in connection.execute(query)]

    def records(self, session_id: str) -> list[str]:
        """Return a session's records, oldest first."""
        query = sql.select(_RECORDS.c.record).where(_RECORDS.c.session == session_id).order_by(_RECORDS.c.number)
        with self._engine.connect() as connection:
            return list(connection.execute(query).scalars())

    def append(self, session_id: str, record: str, *, number: int, at: datetime) -> None:
        """Add a record; when this returns it is on the disk.

        Raises:
            Conflict: somebody else has added that number meanwhile.
        """
        row = {"session": session_id, "number": number, "at": at.timestamp(), "record": record}
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


def _make_durable(connection: Any, _: Any) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _row_of(header: SessionHeader) -> dict[str, Any]:
    values = {column.name: getattr(header, column.name) for column in _SESSIONS.columns}
    times = {name: value.timestamp() for name, value in values.items() if isinstance(value, datetime)}
    return {**values, **times, "image": str(header.image)}


def _header_of(row: Any) -> SessionHeader:
    values = dict(row._mapping)
    times = {n: datetime.fromtimestamp(v, UTC) for n, v in values.items() if n.endswith("_at") and v is not None}
    return SessionHeader(**{**values, **times, "image": Path(values["image"])})
