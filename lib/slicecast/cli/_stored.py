"""What servers have stored for a folder of studies: read as the next start would, and brought to this version."""

import json
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import sqlalchemy as sa

import slicecast
from slicecast.campaign.backup import INDEX
from slicecast.campaign.events import EventStore, sqlite_url
from slicecast.campaign.settings import DATABASE, campaign_settings
from slicecast.campaign.settings import FOLDER as CAMPAIGN
from slicecast.campaign.state import fold
from slicecast.config import users_file
from slicecast.errors import SlicecastError, UpgradeNeeded
from slicecast.inference.session_store import FILE, SessionStore
from slicecast.labelling.state import VERSION, only_server, state_folder
from slicecast.models.versions import FOLDER as MODELS
from slicecast.models.versions import INDEX as WEIGHTS
from slicecast.models.versions import ModelVersions
from slicecast.server.security.users import Users


@dataclass(frozen=True, slots=True)
class Stored:
    """One thing that is stored."""

    what: str
    where: Path
    found: str  # what this version read in it, or why it cannot
    usable: bool = True


def read_stored(studies: Path, *, app: Path | None = None) -> list[Stored]:
    """Read all that is stored for a folder of studies.

    Args:
        app: folder of `slicecast serve --app`.
    """
    state = state_folder(str(studies))
    places: list[tuple[str, Path, Callable[[Path], str]]] = [
        ("served last by version", state / VERSION, lambda file: file.read_text(encoding="utf-8").strip()),
        ("labels", studies / INDEX, _labels),
        ("campaign", studies / CAMPAIGN / DATABASE, _campaign),
        ("sessions", _sessions_file(studies, app), _sessions),
        ("fine-tuned weights", studies / CAMPAIGN / MODELS / WEIGHTS, _weights),
        ("users", users_file(), _users),
    ]
    if campaign_settings().database:
        places[2] = ("campaign", Path("PostgreSQL"), lambda _: _events(EventStore(campaign_settings().database)))
    return [_read(*place) for place in places if place[1].exists() or place[1].name == "PostgreSQL"]


def upgrade_databases(studies: Path, *, app: Path | None = None) -> Iterator[str]:
    """Bring the databases to this version, SQLite's after a copy beside them; yield what was done.

    Raises:
        ResourceError: a server runs on the studies, or a later version has changed them.
    """
    campaign, sessions = studies / CAMPAIGN / DATABASE, _sessions_file(studies, app)
    url = campaign_settings().database
    with only_server(str(studies)):
        if url or campaign.is_file():
            yield _upgraded("campaign", None if url else campaign, partial(_open_events, url or sqlite_url(campaign)))
        if sessions.is_file():
            yield _upgraded("sessions", sessions, partial(SessionStore, sessions.parent))


def _upgraded(what: str, file: Path | None, open_store: Callable[..., object]) -> str:
    try:
        open_store()
        return f"{what}: nothing to convert"
    except UpgradeNeeded:
        kept = file and _copy(file)
        open_store(upgrade=True)
        return f"{what}: converted" + (f"; as it was: {kept}" if kept else "")


def _open_events(url: str, *, upgrade: bool = False) -> None:
    EventStore(url, upgrade=upgrade).close()


def _copy(database: Path) -> Path:
    """Copy a database beside itself; return the copy."""
    kept = database.with_name(f"{database.name}.before-{slicecast.__version__}")
    kept.unlink(missing_ok=True)  # of a try that failed, and changed nothing
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("VACUUM INTO ?", (str(kept),))
    return kept


def _sessions_file(studies: Path, app: Path | None) -> Path:
    return (app or state_folder(str(studies)) / "app") / "sessions" / FILE


def _read(what: str, where: Path, reader: Callable[[Path], str]) -> Stored:
    try:
        return Stored(what, where, reader(where))
    except (SlicecastError, sa.exc.SQLAlchemyError, OSError, ValueError, KeyError, TypeError) as error:
        return Stored(what, where, f"{type(error).__name__}: {str(error)[:300]}", usable=False)


def _labels(file: Path) -> str:
    objects = json.loads(file.read_text(encoding="utf-8"))["objects"]
    return f"{len(objects)} images, {sum(len(one['labels']) for one in objects.values())} labels"


@contextmanager
def _copied(database: Path) -> Iterator[Path]:
    """Give the folder of a copy: opening a database writes beside it."""
    with tempfile.TemporaryDirectory() as folder:
        for ending in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                shutil.copy(f"{database}{ending}", folder)
        yield Path(folder)


def _campaign(file: Path) -> str:
    with _copied(file) as folder:
        return _events(EventStore(sqlite_url(folder / file.name)))


def _events(store: EventStore) -> str:
    try:
        events, damage = store.read(), store.verify()
    finally:
        store.close()
    if damage is not None:
        raise ValueError(f"the chain is damaged at event {damage.number}: {damage.what}")
    return f"{len(events)} events of {len(fold(events).cases)} cases; the chain holds"


def _sessions(file: Path) -> str:
    with _copied(file) as folder:
        store = SessionStore(folder)
        sessions = store.open_headers()
        return f"{len(sessions)} open sessions, {sum(len(store.records(one.id)) for one in sessions)} edits"


def _weights(file: Path) -> str:
    return f"{len(ModelVersions(file.parent).all())} versions"


def _users(file: Path) -> str:
    return f"{len(Users(file).all())} users"
