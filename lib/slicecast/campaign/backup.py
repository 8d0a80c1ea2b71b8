"""Copies what people made in a folder of studies into one file, and back.

That is labels, drafts, campaign, sessions, weights and users; images are the archive's. A server may go on meanwhile:
databases are copied by SQLite's own backup, and what changed is copied again until nothing did, so
that the copy shows one moment.
"""

import json
import shutil
import sqlite3
import tarfile
import tempfile
import time
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import slicecast
from slicecast.campaign.events import EventStore, sqlite_url
from slicecast.campaign.settings import DATABASE
from slicecast.campaign.settings import FOLDER as CAMPAIGN
from slicecast.config import build, users_file
from slicecast.errors import ConfigError, Conflict, InputError, NotFound
from slicecast.files import file_sha256

FORMAT = 1
MANIFEST, USERS = "manifest.json", "users.json"
INDEX = "datastore_v2.json"
KEPT = ("labels", "segmentations", CAMPAIGN, ".slicecast", INDEX)  # What lies in a folder of studies beside the images
LEFT_OUT = ("cache", "logs")  # Folders of the server's state that can be made again

DATABASES = (".db", ".sqlite")
TRIES = 20


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup holds."""

    format: int  # of the file
    version: str  # of the Slicecast that wrote it
    made_s: float  # seconds since 1970
    events: int  # of the campaign, and `digest` of the last one; 0 where the campaign is not in the studies
    digest: str
    files: dict[str, str] = field(default_factory=dict)  # SHA-256 by path


def back_up(studies: Path, target: Path, *, app: Path | None = None) -> Manifest:
    """Write a backup; the file appears whole or not at all.

    Args:
        app: folder of `slicecast serve --app`, whose sessions are taken too.

    Raises:
        NotFound: there is nothing to back up.
        Conflict: files changed faster than they could be copied, or the chain of events is broken.
    """
    sources = {name: studies / name for name in KEPT} | {USERS: users_file()}
    if app is not None:
        sources[".slicecast/app/sessions"] = app / "sessions"
    if not any((studies / name).exists() for name in KEPT):
        raise NotFound(
            f"There is nothing to back up in {studies}: no label, no campaign. Give the folder of the images."
        )
    with tempfile.TemporaryDirectory(prefix=".backup-", dir=target.absolute().parent) as work:
        copy = Path(work) / "copy"
        _copy_one_moment(sources, copy)
        events, digest = _head(copy)
        files = _hashes(copy)
        manifest = Manifest(FORMAT, slicecast.__version__, time.time(), events, digest, files)
        (copy / MANIFEST).write_text(json.dumps(asdict(manifest), indent=1), encoding="utf-8")
        with tarfile.open(Path(work) / "backup.tar", "w") as archive:
            for path in (MANIFEST, *files):
                archive.add(copy / path, path)
        (Path(work) / "backup.tar").replace(target)
    return manifest


def restore(file: Path, studies: Path) -> Manifest:
    """Put a backup's work into a folder of studies that has none; nothing is left of a restore that fails.

    Users are restored where this machine has none.

    Raises:
        InputError: the file is no backup, of a newer format, or damaged.
        Conflict: the folder holds work already, or the chain of events does not hold.
    """
    held = [name for name in KEPT if (studies / name).exists()]
    if held:
        raise Conflict(f"{studies} holds work already ({', '.join(held)}). Restore into a folder that has only images.")
    studies.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".restore-", dir=studies) as work:
        copy = Path(work)
        _unpack(file, copy)
        manifest = _checked(file, copy)
        for name in KEPT:
            if (copy / name).exists():
                (copy / name).replace(studies / name)
        if (copy / USERS).is_file() and not users_file().exists():
            users_file().parent.mkdir(parents=True, exist_ok=True)
            shutil.move(copy / USERS, users_file())
    return manifest


class _Live:
    """Files as they are, while somebody writes. A database stays open, so that it says whether it was written to."""

    def __init__(self, sources: dict[str, Path]) -> None:
        self._sources = sources
        self._databases: dict[Path, sqlite3.Connection] = {}

    def stamps(self) -> dict[str, tuple[Path, object]]:
        """Return each file and what changes when it does, by the path that it gets in the copy."""
        found: dict[str, tuple[Path, object]] = {}
        for name, source in self._sources.items():
            for path in [source] if source.is_file() else source.rglob("*"):
                inner = path.relative_to(source)
                if path.is_file() and not _left_out(name, inner):
                    found[(Path(name) / inner).as_posix()] = path, self._stamp(path)
        return found

    def copy(self, source: Path, target: Path) -> None:
        """Copy a file; of one that was replaced meanwhile nothing, which the next look sees."""
        target.parent.mkdir(parents=True, exist_ok=True)
        if source in self._databases:
            with closing(sqlite3.connect(target)) as still:
                self._databases[source].backup(still)
                still.execute("PRAGMA journal_mode=DELETE")
            return
        with suppress(FileNotFoundError):
            shutil.copy2(source, target)

    def close(self) -> None:
        """Close the databases."""
        for connection in self._databases.values():
            connection.close()

    def _stamp(self, path: Path) -> object:
        if path.suffix in DATABASES:
            if path not in self._databases:
                self._databases[path] = sqlite3.connect(path)
            return self._databases[path].execute("PRAGMA data_version").fetchone()
        with suppress(FileNotFoundError):
            status = path.stat()
            return status.st_ino, status.st_size, status.st_mtime_ns
        return None


def _copy_one_moment(sources: dict[str, Path], copy: Path) -> None:
    done: dict[str, tuple[Path, object]] = {}
    with closing(_Live(sources)) as live:
        for _ in range(TRIES):
            found = live.stamps()
            if found == done:
                return
            for path in done.keys() - found.keys():
                (copy / path).unlink(missing_ok=True)
            for path, (source, stamp) in found.items():
                if done.get(path) != (source, stamp):
                    live.copy(source, copy / path)
            done = found
    raise Conflict(f"Files changed while they were copied, {TRIES} times. Try again when the server is less busy.")


def _left_out(name: str, inner: Path) -> bool:
    if name == ".slicecast" and {*inner.parts} & {*LEFT_OUT}:
        return True
    return inner.name.startswith(".writing-") or inner.name.endswith((".lock", "-wal", "-shm"))


def _head(folder: Path) -> tuple[int, str]:
    """Check the chain of events of a copy; return its last event's number and digest."""
    file = folder / CAMPAIGN / DATABASE
    if not file.is_file():
        return 0, ""
    store = EventStore(sqlite_url(file))
    try:
        damage, events = store.verify(), store.read()
    finally:
        store.close()
    if damage is not None:
        raise Conflict(f"The chain of events is broken: {damage.what}. Take an earlier backup.")
    return (events[-1].number, events[-1].digest) if events else (0, "")


def _unpack(file: Path, folder: Path) -> None:
    try:
        with tarfile.open(file, "r:") as archive:
            archive.extractall(folder, filter="data")
    except FileNotFoundError as error:
        raise NotFound(f"There is no backup {file}.") from error
    except (tarfile.TarError, OSError) as error:
        raise InputError(f"{file} cannot be unpacked: {error}. Is it a backup, and the disk not full?") from error


def _checked(file: Path, copy: Path) -> Manifest:
    try:
        manifest = build(Manifest, json.loads((copy / MANIFEST).read_bytes()), where=f"{file}: {MANIFEST}")
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise InputError(f"{file} is no backup of Slicecast: {MANIFEST} is missing or damaged.") from error
    if manifest.format != FORMAT:
        raise InputError(
            f"{file} was written by Slicecast {manifest.version}. Restore it with that version, or a newer one."
        )
    found = _hashes(copy)
    wrong = sorted(path for path in {*found, *manifest.files} if found.get(path) != manifest.files.get(path))
    if wrong:
        raise InputError(f"{file} is damaged: {', '.join(wrong[:3])} is not what was saved. Take another backup.")
    if _head(copy) != (manifest.events, manifest.digest):
        raise Conflict(f"{file} is damaged: its events do not end where they did. Take another backup.")
    return manifest


def _hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file but the manifest."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        found[path.relative_to(folder).as_posix()] = file_sha256(path)
    return {path: digest for path, digest in found.items() if path != MANIFEST}
