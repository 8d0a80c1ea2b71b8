"""Carries out a Dockerfile in folders, with chroot, where no container can run. Needs root on Linux.

What it knows is what our Dockerfile uses: FROM with AS, ARG, ENV, RUN with a cache, WORKDIR, COPY, USER, and the words
that only say how to run it. An unknown word is an error.
"""

import json
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

MOUNTS = "mount --rbind /dev $ROOT/dev; mount -t proc proc $ROOT/proc"
CERTIFICATES = "/etc/this-machine.crt"
NETWORK = {"/etc/resolv.conf": "/etc/resolv.conf", "/etc/ssl/certs/ca-certificates.crt": CERTIFICATES}
"""How this machine reaches package registries, and where that lies in the image; Docker does the same."""
WHILE_BUILDING = dict.fromkeys(("PIP_CERT", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"), CERTIFICATES)
GIVEN = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
"""What Docker sets in every container."""
CACHE = re.compile(r"^--mount=type=cache,target=(\S+)\s+")


@dataclass
class Stage:
    """An image in the making.

    Args:
        root: its folder.
        seconds: that each instruction took.
    """

    root: Path
    args: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    user: str = "root"
    workdir: str = "/"
    told: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def inside(
        self, command: Sequence[str], *, before: str = "", more: Mapping[str, str] = MappingProxyType({})
    ) -> list[str]:
        """Return the command line that runs a command in the image, with mounts of its own."""
        accounts = (line.split(":") for line in (self.root / "etc" / "passwd").read_text().splitlines())
        home = next(account[5] for account in accounts if account[0] == self.user)
        given = {**GIVEN, "HOME": home, **self.args, **self.env, **more}
        variables = shlex.join(f"{name}={value}" for name, value in given.items())
        words = shlex.join(["sh", "-c", f"cd {self.workdir} && exec {shlex.join(command)}"])
        script = (
            f"ROOT={self.root}; {MOUNTS}; {before} exec chroot --userspec={self.user}: $ROOT env -i {variables} {words}"
        )
        return ["unshare", "--mount", "sh", "-ec", script]

    def json(self, instruction: str) -> list[str]:
        """Return the words of CMD, ENTRYPOINT or HEALTHCHECK."""
        return list(json.loads(self.told[instruction][self.told[instruction].index("[") :]))


def instructions(file: Path) -> Iterator[tuple[str, str]]:
    """Yield each instruction and what follows it."""
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    for line in filter(str.strip, "\n".join(lines).replace("\\\n", " ").splitlines()):
        word, _, rest = line.partition(" ")
        yield word, rest.strip()


def build(
    file: Path, *, base: Path, context: Callable[[str, Path], None], place: Path, args: Mapping[str, str]
) -> Stage:
    """Carry out every instruction; returns the last stage.

    Args:
        base: a fresh root of the system that FROM names.
        context: copies a path of the build's folder to a target.
        place: folder for the stages and the cache.
        args: the build arguments.
    """
    stages: dict[str, Stage] = {}
    stage = Stage(base)
    for word, rest in instructions(file):
        start = time.monotonic()
        if word == "FROM":
            stage = Stage(_fresh(base, place / f"stage{len(stages)}"))
            stages[rest.partition(" AS ")[2] or "last"] = stage
        elif word == "ARG":
            name, _, default = rest.partition("=")
            stage.args[name] = args.get(name, default)
        elif word == "ENV":
            stage.env |= dict(pair.split("=", 1) for pair in shlex.split(rest))
        elif word == "RUN":
            _run(stage, rest, place / "cache")
        elif word == "WORKDIR":
            stage.workdir = rest
            (stage.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif word == "COPY":
            _copy(stage, shlex.split(rest), stages, context)
        elif word == "USER":
            stage.user = rest
        elif word in ("VOLUME", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"):
            stage.told[word] = rest
        else:
            raise ValueError(f"{word} is not known here")
        stage.seconds[f"{word} {rest[:80]}"] = time.monotonic() - start
    return stage


def _fresh(base: Path, root: Path) -> Path:
    subprocess.run(["cp", "-a", base, root], check=True)
    for here, there in NETWORK.items():
        shutil.copy(here, f"{root}{there}")
    return root


def _run(stage: Stage, line: str, cache: Path) -> None:
    before = ""
    if cached := CACHE.match(line):
        target, line = stage.root / cached[1].lstrip("/"), line[cached.end() :]
        cache.mkdir(parents=True, exist_ok=True)
        target.mkdir(parents=True, exist_ok=True)
        before = f"mount --bind {cache} {target};"
    command = stage.inside(["sh", "-c", line], before=before, more=WHILE_BUILDING)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"RUN {line}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"


def _copy(
    stage: Stage, words: Sequence[str], stages: Mapping[str, Stage], context: Callable[[str, Path], None]
) -> None:
    *sources, target = words
    to = stage.root / (target if target.startswith("/") else f"{stage.workdir}/{target}").lstrip("/")
    if sources[0].startswith("--from="):
        root = stages[sources.pop(0).partition("=")[2]].root
        subprocess.run(["cp", "-al", *(root / source.lstrip("/") for source in sources), to], check=True)  # 8 GB
        return
    for source in sources:
        context(source, to)
