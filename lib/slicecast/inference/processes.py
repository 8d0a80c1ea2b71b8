"""Worker processes: each holds an object and carries out tasks on it, several at a time, and tells as it goes on.

The standard library's pools send nothing before a task's end, choose the process themselves, and give up all work when
one of them dies. A process that ends here is started again; what it had in work ends with `WorkerDied`.
"""

import io
import itertools
import logging
import logging.handlers
import os
import pickle
import queue
import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import psutil

from slicecast.errors import SlicecastError, WorkerDied

logger = logging.getLogger(__name__)

Tell = Callable[[str, Any], None]  # Sends something to the caller of a task, under a name
Cancelled = Callable[[], bool]
Task = Callable[[Any, Tell, Cancelled], Any]  # Called in the process with what it holds; picklable
Make = Callable[[], AbstractContextManager[Any]]  # Makes, in the process, what it holds; picklable

POLL_S = 0.05  # How often the caller of a task asks whether it is still wanted
STOP_S = 5.0  # How long a process may take to end by itself
MOST_FAILED_STARTS = 3  # In a row, after which a process is not started again
READY, LOG, DONE, FAILED, DIED = "ready", "log", "done", "failed", "died"
EVERYBODY = -1  # The number of no task

CONTEXT = get_context("spawn")  # a fork of a process with threads may hang


class Worker:
    """One process, from outside; safe between threads.

    Args:
        number: names it.
        make: makes, in the process, what tasks are carried out on.
    """

    def __init__(self, number: int, make: Make) -> None:
        self.number, self._make = number, make
        self.ready = self.broken = False  # it has begun to work; it cannot be started
        self.restarts = 0
        self._guard = threading.Lock()
        self._numbers = itertools.count()
        self._calls: dict[int, queue.SimpleQueue[tuple[str, Any]]] = {}
        self._closing = False
        self._start()
        threading.Thread(target=self._supervise, name=f"slicecast-worker-{number}", daemon=True).start()

    @property
    def pid(self) -> int | None:
        """Its process id."""
        return self._process.pid

    @property
    def pending(self) -> int:
        """Tasks that it has not ended."""
        return len(self._calls)

    @property
    def resident_bytes(self) -> int:
        """Its resident memory; 0 where it has ended."""
        with suppress(psutil.Error):
            return int(psutil.Process(self.pid).memory_info().rss)
        return 0

    def carry_out(self, task: Task, hear: Tell, cancelled: Cancelled) -> Any:
        """Carry out a task, and return what it returns or raise what it raises.

        Args:
            hear: is given what the task tells, in this thread.
            cancelled: asked often; what the task is given in its place turns true with it.

        Raises:
            WorkerDied: the process ended before the task did.
        """
        number, box = next(self._numbers), queue.SimpleQueue[tuple[str, Any]]()
        data, stopped, kind = dumps((number, task)), False, ""
        with self._guard:
            if self.broken or self._closing:
                raise WorkerDied("A worker process could not be started, or was ended; the server's log says why.")
            self._calls[number] = box
            self._send(data)
        try:
            while True:
                if not stopped and cancelled():
                    stopped = True
                    self._stop(number)
                try:
                    kind, value = box.get(timeout=POLL_S)
                except queue.Empty:
                    continue
                if kind == DONE:
                    return value
                if kind in (FAILED, DIED):
                    raise value
                hear(kind, value)
        finally:
            if kind not in (DONE, FAILED, DIED):
                self._stop(number)
            with self._guard:
                self._calls.pop(number, None)

    def close(self) -> None:
        """End the process."""
        with self._guard:
            self._closing = True
            self._send(dumps(None))
        self._process.join(STOP_S)
        self._process.kill()
        self._process.join()

    def _stop(self, number: int) -> None:
        with self._guard:
            self._send(dumps((number, None)))

    def _send(self, data: bytes) -> None:
        try:
            self._connection.send_bytes(data)
        except OSError:
            logger.debug("Worker %d has ended", self.number)  # its supervisor tells all callers

    def _start(self) -> None:
        self._connection, theirs = CONTEXT.Pipe()
        level = logging.getLogger().getEffectiveLevel()
        given = (theirs, self._make, level)
        self._process = CONTEXT.Process(target=_run, args=given, name=f"slicecast-worker-{self.number}", daemon=True)
        self._process.start()
        theirs.close()

    def _supervise(self) -> None:
        failed_starts = 0
        while not self.broken:
            self._receive()
            self._process.join()
            died = WorkerDied("The process that worked on this ended. Try again.")
            died.working = self.ready
            failed_starts = 0 if self.ready else failed_starts + 1
            with self._guard:
                self.ready = False
                calls, self._calls = list(self._calls.values()), {}
                if not self._closing:
                    logger.warning("Worker %d ended with status %s", self.number, self._process.exitcode)
                    self.restarts += 1
                    self.broken = failed_starts >= MOST_FAILED_STARTS
                    if not self.broken:
                        self._start()
            for box in calls:
                box.put((DIED, died))
            if self._closing:
                return

    def _receive(self) -> None:
        """Hand out what the process sends, until it ends."""
        with suppress(EOFError, OSError):
            while True:
                number, kind, value = pickle.loads(self._connection.recv_bytes())
                if kind == LOG:
                    logging.getLogger(value.name).handle(value)
                elif kind == READY:
                    self.ready = True
                elif box := self._calls.get(number):
                    box.put((kind, value))


class _Outbox(queue.SimpleQueue[Any]):
    """The way to the server; safe between threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._guard = connection, threading.Lock()

    def tell(self, number: int, kind: str, value: Any) -> None:
        data = dumps((number, kind, value))
        with self._guard, suppress(OSError):
            self._connection.send_bytes(data)

    def put_nowait(self, item: Any) -> None:
        """Send a log record; a `QueueHandler` calls this."""
        self.tell(EVERYBODY, LOG, item)


def _run(connection: Connection, make: Make, level: int) -> None:
    """Be a worker: until the server goes away, by whatever death."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal all get it, and the server decides
    outbox = _Outbox(connection)
    logging.getLogger().addHandler(logging.handlers.QueueHandler(outbox))
    logging.getLogger().setLevel(level)
    stops: dict[int, threading.Event] = {}
    with make() as held, suppress(EOFError, OSError):
        outbox.tell(EVERYBODY, READY, None)
        while message := pickle.loads(connection.recv_bytes()):
            number, task = message
            if task is not None:
                stops[number] = threading.Event()
                threading.Thread(target=_carry_out, args=(held, number, task, stops, outbox), daemon=True).start()
            elif number in stops:
                stops[number].set()
    os._exit(0)  # threads in the middle of a task are not waited for


def _carry_out(held: Any, number: int, task: Task, stops: dict[int, threading.Event], outbox: _Outbox) -> None:
    try:
        value = task(held, lambda kind, told: outbox.tell(number, kind, told), stops[number].is_set)
        outbox.tell(number, DONE, value)
    except Exception as error:  # whatever it is, the caller gets it
        if not isinstance(error, SlicecastError):
            logger.exception("A worker's task failed")
        outbox.tell(number, FAILED, error if isinstance(error, SlicecastError) else RuntimeError(repr(error)))
    del stops[number]


def dumps(message: Any) -> bytes:
    """Pickle a message; of a volume of labels only the box that holds any."""
    file = io.BytesIO()
    _Pickler(file, protocol=pickle.HIGHEST_PROTOCOL).dump(message)
    return file.getvalue()


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if type(value) is not np.ndarray or value.ndim != 3 or value.dtype not in (np.uint8, np.bool_):
            return NotImplemented
        corner, box = trimmed(value)
        return whole, (value.shape, corner, box.tobytes(), box.shape, value.dtype.str, value.flags.writeable)


def trimmed(labels: np.ndarray) -> tuple[tuple[int, ...], np.ndarray]:
    """Return the first corner and the values of the smallest box of a volume that holds all that is not 0."""
    box, corner = labels, []
    for axis in range(3):
        others = tuple(n for n in range(3) if n != axis)
        filled = np.flatnonzero(box.view(np.uint8).max(axis=others, initial=0))
        low, high = (int(filled[0]), int(filled[-1]) + 1) if len(filled) else (0, 0)
        corner.append(low)
        box = np.moveaxis(np.moveaxis(box, axis, 0)[low:high], 0, axis)
    return tuple(corner), box


def whole(
    shape: tuple[int, ...], corner: tuple[int, ...], data: bytes, size: tuple[int, ...], dtype: str, writeable: bool
) -> np.ndarray:
    """Undo `trimmed`."""
    labels = np.zeros(shape, dtype)
    place = tuple(slice(low, low + count) for low, count in zip(corner, size, strict=True))
    labels[place] = np.frombuffer(data, dtype).reshape(size)
    labels.flags.writeable = writeable
    return labels
