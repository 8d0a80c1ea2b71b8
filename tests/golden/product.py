"""The product as a user meets it: the command, the server. Nothing of the package's inside is named here."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "sample-data"
CONFIGS = ROOT / "configs"
START_LIMIT_S = 300


@dataclass(frozen=True)
class Call:
    """A command without the word `slicecast`, and the environment that it is to see."""

    words: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it printed."""

    code: int
    output: str


def entry() -> str:
    """Return what the `slicecast` script calls, as `module:function`."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["slicecast"])


def environment() -> dict[str, str]:
    """Return an environment without the developer's own settings, users and GPU."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLICECAST_")}
    users = str(Path(__file__).parent / "no-users.json")
    return {**kept, "SLICECAST_USERS": users, "CUDA_VISIBLE_DEVICES": "", "NO_COLOR": "1"}


def run_all(calls: Sequence[Call], *, heavy: Sequence[str] = ()) -> list[Done]:
    """Run commands one after another, from the root of the tree; `heavy` packages are imported once for all of them."""
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder) / "calls.json", Path(folder) / "results.json"
        content = [{"entry": entry(), "words": list(call.words), "env": dict(call.env)} for call in calls]
        asked.write_text(json.dumps(content), encoding="utf-8")
        command = [sys.executable, str(Path(__file__).with_name("forks.py")), str(asked), str(answered), *heavy]
        subprocess.run(command, check=True, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL)
        return [Done(**result) for result in json.loads(answered.read_text(encoding="utf-8"))]


def run(*words: object) -> Done:
    """Run one command."""
    return run_all([Call([str(word) for word in words])])[0]


@contextmanager
def serving(studies: Path, app: Path, *, configs: Path = CONFIGS) -> Iterator[httpx.Client]:
    """Run `slicecast serve` on a folder of studies; a client of it, which names nobody."""
    copy_app(app)
    port, log = free_port(), app.parent / "server.log"
    module, _, function = entry().partition(":")
    command = [sys.executable, "-c", f"from {module} import {function}; {function}()", "serve"]
    command += ["--studies", str(studies), "--app", str(app), "--port", str(port)]
    command += ["--model", "sam2_nano", "--labels", "liver,spleen,kidney"]
    env = {**environment(), "SLICECAST_CONFIGS": str(configs)}
    with log.open("wb") as stream:
        process = subprocess.Popen(command, env=env, stdout=stream, stderr=subprocess.STDOUT)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300) as client:
            _wait(process, client, log)
            yield client
    finally:
        process.terminate()
        process.wait(60)


def copy_app(folder: Path) -> Path:
    """Copy the app, because a server writes into its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "apps" / "sam2" / "main.py", folder)
    return folder


def copy_studies(folder: Path) -> Path:
    """Copy the sample scans, because a server writes beside them."""
    return Path(shutil.copytree(SAMPLES / "studies", folder))


def free_port() -> int:
    """Return a port on which nobody listens at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(process: subprocess.Popen[bytes], client: httpx.Client, log: Path) -> None:
    until = time.monotonic() + START_LIMIT_S
    while process.poll() is None and time.monotonic() < until:
        try:
            client.get("/healthz").raise_for_status()
            return
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError(f"The server did not start: {log.read_text(errors='replace')[-2000:]}")
