"""A labelling server in a process of its own, for as long as a `with` block lasts."""

import random
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from slicecast.errors import ResourceError

START_LIMIT_S = 300.0
"""A server that has not answered by then never will; about ten seconds are normal, minutes on a busy machine."""
STOP_LIMIT_S = 10.0

PORTS = range(20_000, 32_768)
"""Linux gives outgoing connections the ports from 32768 on, other systems those from 49152 on."""


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that answers."""

    url: str
    log: Path  # what it printed
    start_s: float  # how long it took until the first answer
    pid: int


@contextmanager
def running_server(command: Sequence[str], *, url: str, log: Path, probe: str = "/info/") -> Iterator[RunningServer]:
    """Start a server, wait until it answers at `probe`, and stop it in the end, whatever happens.

    Raises:
        ResourceError: it ended or did not answer in time; the text has the end of its log.
    """
    start = time.monotonic()
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
    try:
        _wait(process, url + probe, log, until=start + START_LIMIT_S)
        yield RunningServer(url, log, time.monotonic() - start, process.pid)
    finally:
        _stop(process)


@contextmanager
def serving(
    studies: Path | str,
    *,
    log: Path,
    app: Path | None = None,
    port: int = 0,
    options: Sequence[str] = (),
    scheme: str = "http",
) -> Iterator[RunningServer]:
    """Run `slicecast serve` on a folder, or a DICOMweb server's address, at a free port of this machine."""
    port = port or free_port()
    command = [sys.executable, "-m", "slicecast.cli.main", "serve"]
    arguments = ["--studies", str(studies), "--port", str(port), *(["--app", str(app)] if app else []), *options]
    with running_server([*command, *arguments], url=f"{scheme}://127.0.0.1:{port}", log=log) as server:
        yield server


def free_port() -> int:
    """Return a port that is free at the moment, of those that no outgoing connection takes by chance.

    So a server that was killed finds its port again.
    """
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise ResourceError(f"All ports from {PORTS.start} to {PORTS.stop - 1} are in use. Close some programs.")


def _wait(process: subprocess.Popen[bytes], url: str, log: Path, *, until: float) -> None:
    while time.monotonic() < until:
        if process.poll() is not None:
            raise ResourceError(f"The server ended with status {process.returncode}. Its last words: {_tail(log)}")
        if _answers(url):
            return
        time.sleep(0.1)
    raise ResourceError(f"The server did not answer within {START_LIMIT_S:g} seconds. Its last words: {_tail(log)}")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError as error:
        return error.code == 401  # it asks for a login
    except (urllib.error.URLError, OSError):
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-1500:]
