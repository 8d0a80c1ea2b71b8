"""The delivery queue: labels that must reach a DICOM server or become a DICOM SEG file, on disk until they have.

A job is a folder `<number>` with `job.json` and the label's file. It appears by one rename and is removed after
delivery; after a restart, the jobs on disk are resumed. A job delivered just before a crash is delivered twice, under
the same DICOM identifiers, so that the receiver stores it once.

Submissions (`Intents`) lie in such a queue before the label is saved and its event written. So a server that is killed
leaves both or neither: at the next start, what was begun is finished.
"""

import json
import logging
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock

from slicecast.campaign.state import ReadingTask
from slicecast.errors import Conflict, SlicecastError
from slicecast.files import place_file, sync_folder, write_atomically

logger = logging.getLogger(__name__)

JOB = "job.json"
FIRST_WAIT_S, LONGEST_WAIT_S = 2.0, 300.0  # Between attempts; doubled each time


@dataclass(frozen=True, slots=True)
class Delivery:
    """A label to be delivered."""

    folder: Path
    label: Path
    facts: Mapping[str, Any]  # JSON values passed to `put`


class DeliveryQueue:
    """Delivers labels in order, in a background thread, and retries until each has arrived.

    Args:
        deliver: delivers one; raises if it cannot now, and is called again later.
        wait_s: seconds before the second attempt.
    """

    def __init__(self, folder: Path, deliver: Callable[[Delivery], None], *, wait_s: float = FIRST_WAIT_S) -> None:
        self._folder, self._deliver, self._first_wait_s = folder, deliver, wait_s
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._guard = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".*"):  # left by a crash inside `put`, which was never acknowledged
            shutil.rmtree(leftover, ignore_errors=True)

    def put(self, label: Path, facts: Mapping[str, Any]) -> Path:
        """Queue a copy of a label; once this returns it survives a crash. Call `start` to begin delivery."""
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
        """Remove a job, atomically."""
        hidden = self._folder / f".{uuid4().hex}"
        try:
            job.rename(hidden)
        except FileNotFoundError:  # removed already
            return
        shutil.rmtree(hidden, ignore_errors=True)

    def waiting(self) -> list[Delivery]:
        """Return the undelivered jobs, oldest first."""
        return [delivery for folder in sorted(self._folder.glob("[0-9]*")) if (delivery := _read_job(folder))]

    def start(self) -> None:
        """Begin delivery in the background."""
        with self._guard:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="delivery-queue", daemon=True)
                self._thread.start()
        self._wake.set()

    def close(self) -> None:
        """Stop the thread; undelivered jobs stay on disk."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def deliver_all(self) -> int:
        """Try each job once; return the number of those left."""
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


@dataclass(frozen=True, slots=True)
class Submission:
    """A label that was let in, and is to be saved and recorded."""

    image: str  # as the client names it
    case: str  # the image's own name
    who: str  # whose label it is
    task: ReadingTask  # what it is for
    tag: str  # under which it is saved
    after: int  # number of the last event before it
    info: Mapping[str, Any] = field(default_factory=dict)  # the label's record
    said: Mapping[str, Any] = field(default_factory=dict)  # what its event says besides the file's version and hash
    anyones: bool = False  # they may label what somebody else holds


class Intents:
    """Submissions that were begun; one at a time, also over several processes.

    Args:
        folder: made when first needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let nobody else save a final label while the block lasts."""
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self._folder.with_name(f"{self._folder.name}.lock")):
            yield

    @contextmanager
    def begun(self, label: Path, submission: Submission) -> Iterator[None]:
        """Note what is begun until the block ends, well or with an error; only a kill leaves it noted."""
        jobs = self._jobs()
        job = jobs.put(label, asdict(submission))
        try:
            yield
        finally:
            jobs.discard(job)

    def wait_for(self, case: str) -> bool:
        """Tell whether a kill left a submission of a case; to be asked while `alone`."""
        return any(job.facts["case"] == case for job in self._jobs().waiting())

    def finish_left(self, finish: Callable[[Path, Submission], None]) -> None:
        """Call back with what a kill left: the label's file and the submission.

        What may not be finished any more is forgotten; what cannot be at present (a scan that is not there, a disk
        that is full) stays for the next time.
        """
        jobs = self._jobs()
        for job in jobs.waiting():
            left = _submission(job)
            try:
                finish(job.label, left)
            except Conflict as error:
                logger.warning("A label of '%s' by %s was not finished: %s", left.case, left.who, error)
            except (SlicecastError, OSError) as error:
                logger.error("A label of '%s' by %s waits for the next start: %s", left.case, left.who, error)
                continue
            jobs.discard(job.folder)

    def _jobs(self) -> DeliveryQueue:
        return DeliveryQueue(self._folder, lambda delivery: None)


def _submission(job: Delivery) -> Submission:
    facts = dict(job.facts)
    return Submission(**{**facts, "task": ReadingTask(facts["task"])})
