"""Servers that are killed in the middle of what they do, and a count of what is left."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from labelserver import copy_app

from slicecast.campaign.events import Event, EventStore, sqlite_url
from slicecast.demo.server_process import free_port

KILLS = int(os.environ.get("KILLS", "3"))
WAIT_S = 300.0


class Launcher:
    """Starts servers; see `server_launcher`."""

    def __init__(self) -> None:
        command = [sys.executable, str(Path(__file__).with_name("server_launcher.py"))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self, **asked: object) -> int:
        """Start a server and return its process id."""
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def end(self) -> None:
        """End; the servers are the caller's to kill."""
        with self._process:
            self._process.stdin.close()


@dataclass
class Killed:
    """A server on some studies, killed and started again and again.

    Args:
        launcher: starts it.
        studies: a folder, or the address of a PACS.
        folder: of the app.
    """

    launcher: Launcher
    studies: str
    folder: Path
    acknowledged: int = 0
    lost: int = 0
    doubled: int = 0
    pid: int | None = None
    http: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=WAIT_S))
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    usual_s: float = 0.0

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        app = self.folder / "app"
        if not app.exists():
            copy_app(app)
        conf = {"labels": "ball,other", "preannotate": "false", "device": "cpu"}
        named = {"APP_DIR": str(app), "STUDIES": self.studies, "APP_CONF": conf, "DATASTORE_AUTO_RELOAD": False}
        settings = {f"MONAI_LABEL_{name}": value for name, value in named.items()}
        port = free_port()
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=WAIT_S)
        self.pid = self.launcher.start(port=port, log=str(self.folder / "log"), settings=settings)
        end = time.monotonic() + WAIT_S
        while not self._answers():
            assert psutil.pid_exists(self.pid) and time.monotonic() < end, (self.folder / "log").read_text()[-3000:]
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            return self.http.get("/healthz").is_success
        except httpx.TransportError:
            return False

    def many_times(self, act: Callable[[], int], kept: Callable[[], int]) -> None:
        """Work until killed, `KILLS` times, and count.

        Args:
            act: does something and returns how much of it was acknowledged.
            kept: counts what the server knows of it after a start.
        """
        self.start()
        begun, before = time.monotonic(), kept()
        self.acknowledged = act()
        self.usual_s = time.monotonic() - begun
        assert kept() - before == self.acknowledged
        for _ in range(KILLS):
            before, done = kept(), self._work_until_killed(act)
            self.start()
            new = kept() - before
            self.acknowledged += done
            self.lost += max(0, done - new)
            self.doubled += max(0, new - done - 1)  # one more may have been done and not yet been acknowledged

    def _work_until_killed(self, act: Callable[[], int]) -> int:
        done, delay_s = 0, self.rng.uniform(0, 2 * self.usual_s)
        killer = threading.Timer(delay_s, os.kill, (self.pid, signal.SIGKILL))
        killer.start()
        try:
            while True:
                done += act()
        except httpx.TransportError:
            killer.join()
            self.end()
        return done

    def end(self) -> None:
        """Kill the server, if it is still there, and wait until it is gone."""
        if self.pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        while psutil.pid_exists(self.pid):
            time.sleep(0.005)
        self.http.close()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that the server does by itself."""
        end = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.1)

    def events(self, *kinds: str) -> list[Event]:
        """Read the campaign's events of some kinds."""
        database = next(self.folder.rglob("campaign.db"), None)
        if database is None:
            return []
        store = EventStore(sqlite_url(database))
        try:
            return [event for event in store.read() if event.kind in kinds]
        finally:
            store.close()

    @property
    def counted(self) -> dict[str, int]:
        """What must be zero."""
        print(f"{KILLS} kills, {self.acknowledged} acknowledged, {self.lost} lost, {self.doubled} doubled")
        assert self.acknowledged > 0
        return {"lost": self.lost, "doubled": self.doubled}


NOTHING = {"lost": 0, "doubled": 0}
