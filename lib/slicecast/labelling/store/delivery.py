"""Labels on their way to somewhere else (a DICOM server, a DICOM SEG file): on the disk until they have arrived.

A job is a folder `<number>` with `job.json` and the label's file; it appears by one rename and is removed once it was
delivered. After a crash or a restart the jobs that are there go on. What was delivered just before a crash is delivered
again, under the same DICOM identifiers, so that the receiver sees it once.
"""

import json
import logging
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from slicecast.labelling.store.versions import place_file, sync_folder, write_atomically

logger = logging.getLogger(__name__)

JOB = "job.json"
FIRST_WAIT_S, LONGEST_WAIT_S = 2.0, 300.0
"""Between attempts; each time twice as long."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A label to be delivered.

    Args:
        folder: where it waits.
        label: its file.
        facts: what was said when it was put in.
    """

    folder: Path
    label: Path
    facts: Mapping[str, Any]


class DeliveryQueue:
    """Delivers labels in order, in the background, until each has arrived.

    Args:
        folder: where jobs wait.
        deliver: brings one to its place; raises where it cannot now. Called again until it returns.
        wait_s: seconds before the second attempt.
    """

    def __init__(self, folder: Path, deliver: Callable[[Delivery], None], *, wait_s: float = FIRST_WAIT_S) -> None:
        self._folder, self._deliver, self._first_wait_s = folder, deliver, wait_s
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._guard = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".*"):  # a crash while it was being put together; nobody was told that it is safe
            shutil.rmtree(leftover, ignore_errors=True)

    def put(self, label: Path, facts: Mapping[str, Any]) -> Path:
        """Keep a label for delivery; once this returns, it survives a crash. Call `start` to have it delivered."""
        hidden = self._folder / f".{uuid4().hex}"
        hidden.mkdir()
        try:
            place_file(label, hidden / f"label{''.join(label.suffixes[-2:])[-12:]}")
            write_atomically(hidden / JOB, json.dumps(dict(facts), default=str).encode())
            with self._guard:
                target = self._folder / f"{self._next_number():08}"
                hidden.rename(target)
            sync_folder(self._folder)
        except OSError:
            shutil.rmtree(hidden, ignore_errors=True)
            raise
        return target

    def discard(self, job: Path) -> None:
        """Forget a job; it is there whole or not at all."""
        hidden = self._folder / f".{uuid4().hex}"
        try:
            job.rename(hidden)
        except FileNotFoundError:  # forgotten already
            return
        shutil.rmtree(hidden, ignore_errors=True)

    def waiting(self) -> list[Delivery]:
        """Return the jobs that have not been delivered, oldest first."""
        return [delivery for folder in sorted(self._folder.glob("[0-9]*")) if (delivery := _read_job(folder))]

    def start(self) -> None:
        """Deliver what waits, now."""
        with self._guard:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="delivery-queue", daemon=True)
                self._thread.start()
        self._wake.set()

    def close(self) -> None:
        """Stop; what waits stays on the disk."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def deliver_all(self) -> int:
        """Try each job once; return how many are left."""
        for delivery in self.waiting():
            try:
                self._deliver(delivery)
            except Exception as error:  # a background thread's outermost boundary; whatever it was, the label is kept
                logger.warning("A label of %s still waits: %s", delivery.facts.get("image_id"), error)
            else:
                self.discard(delivery.folder)
        return len(self.waiting())

    def _run(self) -> None:
        wait_s = self._first_wait_s
        while not self._stop.is_set():
            self._wake.clear()
            if not self.deliver_all():
                wait_s, timeout = self._first_wait_s, None
            else:
                timeout, wait_s = wait_s, min(2 * wait_s, LONGEST_WAIT_S)
            self._wake.wait(timeout)

    def _next_number(self) -> int:
        return max((int(path.name) for path in self._folder.glob("[0-9]*") if path.name.isdecimal()), default=0) + 1


def _read_job(folder: Path) -> Delivery | None:
    try:
        facts = json.loads((folder / JOB).read_text(encoding="utf-8"))
        return Delivery(folder, next(folder.glob("label*")), facts)
    except (OSError, ValueError, StopIteration) as error:
        logger.error("The waiting label %s cannot be read (%s); it stays where it is", folder, error)
        return None
