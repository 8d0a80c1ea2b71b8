"""MONAI Label's upload sessions, kept inside the app's folder, with ids that cannot be paths."""

import shutil
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from monailabel.utils.sessions import SessionInfo, Sessions

from slicecast.errors import SlicecastError
from slicecast.inference.settings import request_limits
from slicecast.labelling.store.images import is_upload_name
from slicecast.labelling.store.uploads import unpack


class SafeSessions(Sessions):
    """`Sessions` that answers "not found" for everything that is not a session id."""

    def add_session(
        self, data_file: str, expiry: int = 0, uncompress: bool = False, session_id: str | None = None
    ) -> tuple[str, SessionInfo]:
        """Keep an upload under a new id; an archive of one file becomes that file, of several their folder."""
        if not uncompress or Path(data_file).is_dir():
            return super().add_session(data_file, expiry, False, None)
        try:
            return self._unpacked(Path(data_file), expiry)
        except SlicecastError:  # MONAI Label removes what it received only when all went well
            if is_upload_name(Path(data_file).parent):
                shutil.rmtree(Path(data_file).parent, ignore_errors=True)
            raise

    def _unpacked(self, archive: Path, expiry: int) -> tuple[str, SessionInfo]:
        limits = request_limits()
        with tempfile.TemporaryDirectory() as work:
            folder = Path(work) / "image"
            folder.mkdir()
            most = limits.unpacked_mb << 20
            files = unpack(archive, folder, max_bytes=most, max_files=limits.files)
            return super().add_session(str(files[0] if len(files) == 1 else folder), expiry, False, None)

    def get_session(self, session_id: str, update_ts: bool = True, fetch_cache: bool = True) -> SessionInfo | None:
        """Return a session, or None."""
        return super().get_session(session_id, update_ts, fetch_cache) if _is_id(session_id) else None

    def remove_session(self, session_id: str) -> None:
        """Remove a session and its files."""
        if _is_id(session_id):
            super().remove_session(session_id)

    def remove_expired(self) -> int:
        """Remove the sessions whose time is over, and folders without a record; return how many."""
        folder = Path(self.store_path)
        names = [entry.name for entry in folder.iterdir() if entry.is_dir()] if folder.is_dir() else []
        over = [name for name in names if _is_id(name) and self._is_over(name)]
        for name in over:
            self.remove_session(name)
        return len(over)

    def _is_over(self, name: str) -> bool:
        info = self.get_session(name, update_ts=False, fetch_cache=False)
        return info is None or (info.expiry > 0 and info.last_access_ts + info.expiry < time.time())


def _is_id(value: Any) -> bool:
    try:
        return str(uuid.UUID(value)) == value
    except (AttributeError, TypeError, ValueError):
        return False
