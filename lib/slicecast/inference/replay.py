"""A session's log, carried out again from the beginning: the same volume, weights and log give the same mask."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from slicecast.config import build
from slicecast.engine.session import Record, Session, prompt_set
from slicecast.errors import Conflict, InputError, PromptError, UnknownSession
from slicecast.inference.results import SegmentResult
from slicecast.inference.segment import SegmentService
from slicecast.inference.session_codec import decode_record, encode_record
from slicecast.inference.session_state import grid_of, request_of
from slicecast.inference.session_store import FILE, SessionHeader, SessionStore


@dataclass(frozen=True, slots=True)
class SessionLog:
    """A session as it can be carried elsewhere.

    Args:
        header: what it was opened with.
        records: oldest first.
    """

    header: SessionHeader
    records: tuple[Record, ...]

    def until(self, revision: int) -> "SessionLog":
        """Return the log as it was at a revision.

        Raises:
            PromptError: it never was there.
        """
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
    return SessionLog(store.header(session_id), tuple(map(decode_record, store.records(session_id))))


def write_log(path: Path, log: SessionLog) -> None:
    """Write a log as JSON lines: the header, then one record a line."""
    lines = [json.dumps(asdict(log.header), default=str), *map(encode_record, log.records)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_log(path: Path) -> SessionLog:
    """Read a log that :func:`write_log` wrote.

    Raises:
        InputError: it is not one.
    """
    try:
        header, *records = path.read_text(encoding="utf-8").splitlines()
        return SessionLog(_header_of(json.loads(header)), tuple(map(decode_record, records)))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path} is not a session's log ({error}). Give one that 'slicecast replay --log' wrote."
        ) from error


def replay(
    log: SessionLog,
    service: SegmentService,
    *,
    image: Path | None = None,
    progress: Callable[[int, str], None] | None = None,
) -> SegmentResult:
    """Carry a log out.

    Args:
        image: where the image lies now. Default: where it lay.

    Raises:
        Conflict: the service runs another model.
        PromptError: nothing counts to start from.
    """
    if log.header.model != service.model_name:
        raise Conflict(
            f"The session was carried out by '{log.header.model}', this service runs '{service.model_name}'."
        )
    header = replace(log.header, image=image or log.header.image)
    grid = grid_of(service.studies.open(header.image).reorientation, header.axis)
    prompts = prompt_set(Session.replay(log.records).content, grid)
    if prompts is None:
        raise PromptError("Nothing counts in this session to start from, so there is no mask to replay.")
    return service.segment(request_of(header, prompts), progress=progress)


def _header_of(content: dict[str, Any]) -> SessionHeader:
    times = {n: datetime.fromisoformat(v) for n, v in content.items() if n.endswith("_at") and v is not None}
    return build(SessionHeader, {**content, **times, "image": Path(content["image"])}, where="a session's log")
