"""Other machines, as folders and network namespaces of this one, and a click in a server that runs there.

Needs root on Linux. `python machines.py URL MASK TOKEN` clicks; it is run inside such a machine.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

STRUCTURE = {"kind": "point", "object": "liver", "ijk": [40, 50, 20]}
"""In the generated scan `ct_abdomen_b`."""

START_LIMIT_S = 120


def click(client: httpx.Client, image: str = "ct_abdomen_b") -> bytes:
    """Segment from one click in a session; returns the mask's file."""
    opened = client.post("/slicecast/sessions", json={"image": image})
    assert opened.status_code == 201, opened.text
    session = opened.headers["Location"]
    assert client.post(f"{session}/prompts", json={"prompts": [STRUCTURE]}).status_code == 200
    answer = client.get(f"{session}/result", timeout=300.0)
    assert answer.status_code == 200, answer.text
    return answer.content


def save(client: httpx.Client, image: str, mask: bytes) -> None:
    """Submit a mask as the final label, as 3D Slicer does."""
    params = {"label_info": [{"name": "liver", "idx": 1}]}
    files = {"label": ("label.nii.gz", mask)}
    form = {"params": json.dumps(params)}
    saved = client.put("/datastore/label", params={"image": image, "tag": "final"}, data=form, files=files)
    assert saved.status_code == 200, saved.text


def wait_for(client: httpx.Client, path: str = "/healthz") -> None:
    """Wait until a server answers."""
    for _ in range(START_LIMIT_S):
        try:
            if client.get(path).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(1.0)
    raise TimeoutError(f"{client.base_url}{path} does not answer")


def run(*words: object, env: Mapping[str, str] | None = None) -> str:
    """Run a command that must succeed; returns what it printed."""
    done = subprocess.run([*map(str, words)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{shlex.join(map(str, words))}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


@contextmanager
def running(command: Sequence[object], log: Path) -> Iterator[int]:
    """Run a command for as long as the block lasts; its process."""
    with log.open("wb") as stream:
        process = subprocess.Popen([*map(str, command)], stdout=stream, stderr=subprocess.STDOUT)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(60)


@dataclass(frozen=True, slots=True)
class Machine:
    """Namespaces of their own for network and mounts, held by a process; nothing leads out of them.

    Args:
        root: the machine's system: all of this one's, and what was written there.
        spaces: the namespaces that are its own, as options of nsenter.
    """

    pid: int
    root: str
    spaces: Sequence[str] = ("--net", "--mount")

    def inside(self, command: Sequence[object], *, env: Mapping[str, str], user: str = "root") -> list[str]:
        """Return the command line that runs a command there."""
        enter = ["nsenter", f"--target={self.pid}", *self.spaces, "chroot", f"--userspec={user}", self.root]
        return [*enter, "env", "-i", *(f"{key}={value}" for key, value in env.items()), *map(str, command)]


MOUNTED = """
ip link set lo up; mount -t tmpfs tmpfs /mnt; mkdir /mnt/new /mnt/work /mnt/root
mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/new,workdir=/mnt/work /mnt/root
for place in /dev /proc /sys {shared}; do mkdir -p /mnt/root$place; mount --rbind $place /mnt/root$place; done
echo ready; exec sleep infinity
"""


@contextmanager
def machine(*shared: Path) -> Iterator[Machine]:
    """Set up a machine without a network, for as long as the block lasts.

    Args:
        shared: folders that are this machine's own; of all others it has a copy.
    """
    script = MOUNTED.format(shared=" ".join(map(str, shared)))
    holder = ["unshare", "--net", "--mount", "sh", "-ec", script]
    with subprocess.Popen(holder, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            yield Machine(process.pid, "/mnt/root")
        finally:
            process.kill()


BOOTED = """
mount --make-rprivate /; ip link set lo up; mount -t tmpfs tmpfs /mnt; mkdir /mnt/new /mnt/work /mnt/root
root=/mnt/root; mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/new,workdir=/mnt/work $root
mount -t proc proc $root/proc; mount -o bind,ro $root/proc/sys $root/proc/sys
mount -t sysfs -o ro sysfs $root/sys; mount -t cgroup2 cgroup2 $root/sys/fs/cgroup
for place in dev run tmp; do mount -t tmpfs -o mode=755 tmpfs $root/$place; done
chmod 1777 $root/tmp; mkdir $root/dev/shm
for node in null zero full random urandom tty; do touch $root/dev/$node; mount --bind /dev/$node $root/dev/$node; done
{mounts}
exec chroot $root env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin setpriv --bounding-set \\
    -sys_module,-sys_time,-sys_boot,-syslog,-sys_rawio /lib/systemd/systemd --system --unit=sysinit.target
"""
"""What a container's manager does before it starts systemd as the first process."""


@contextmanager
def booted(shared: Mapping[Path, str]) -> Iterator[Machine]:
    """Start a machine without a network whose first process is systemd, for as long as the block lasts.

    Args:
        shared: folders of this machine, and where they lie there, read-only.
    """
    mounted = Path("/proc/mounts").read_text().splitlines()
    groups = (
        Path(next(line.split()[1] for line in mounted if line.split()[2] == "cgroup2")) / f"slicecast-{os.getpid()}"
    )
    bind = "mkdir -p $root{there}; mount --bind {here} $root{there}; mount -o remount,bind,ro $root{there}"
    script = BOOTED.format(mounts="\n".join(bind.format(here=here, there=there) for here, there in shared.items()))
    own = ["--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--fork", "--kill-child"]
    start = f"echo $$ > {groups}/cgroup.procs; exec unshare {' '.join(own)} sh -ec {shlex.quote(script)}"
    groups.mkdir()
    with subprocess.Popen(["sh", "-ec", start]) as process:
        try:
            yield Machine(_first_process(process.pid), "/mnt/root", ("--net", "--mount", "--pid"))
        finally:
            process.kill()
            process.wait()
            (groups / "cgroup.kill").write_text("1")
            while "populated 1" in (groups / "cgroup.events").read_text():
                time.sleep(0.1)
            for folder in sorted((path for path in groups.rglob("*") if path.is_dir()), reverse=True):
                folder.rmdir()
            groups.rmdir()


def _first_process(parent: int) -> int:
    """Return the process that `unshare --fork` started, once systemd runs in it."""
    for _ in range(START_LIMIT_S):
        for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
            of = Path("/proc", child)
            if (of / "comm").read_text() == "systemd\n" and (of / "root/run/systemd/private").exists():
                return int(child)
        time.sleep(1.0)
    raise TimeoutError("systemd does not start")


@contextmanager
def network(addresses: Mapping[str, str], *shared: Path, bits: int = 24) -> Iterator[dict[str, Machine]]:
    """Set up machines that reach each other by name, and nothing else; names of one address are one machine."""
    hosts = "".join(f"{address} {name}\n" for name, address in {"localhost": "127.0.0.1", **addresses}.items())
    with ExitStack() as stack:
        switch = stack.enter_context(machine(*shared))
        outside = ["nsenter", f"--target={switch.pid}", "--net", "ip"]
        run(*outside, "link", "add", "bridge", "type", "bridge")
        run(*outside, "link", "set", "bridge", "up")
        machines: dict[str, Machine] = {}
        for number, (name, address) in enumerate(addresses.items()):
            if already := next((other for other in machines if addresses[other] == address), ""):
                machines[name] = machines[already]
                continue
            machines[name] = one = stack.enter_context(machine(*shared))
            run(*outside, "link", "add", f"to{number}", "type", "veth", "peer", "name", "eth0", "netns", one.pid)
            run(*outside, "link", "set", f"to{number}", "master", "bridge", "up")
            own = ["nsenter", f"--target={one.pid}", "--net", "ip"]
            run(*own, "address", "add", f"{address}/{bits}", "dev", "eth0")
            run(*own, "link", "set", "eth0", "up")
            Path(f"/proc/{one.pid}/root{one.root}/etc/hosts").write_text(hosts)
        yield machines


def click_inside(where: Machine, url: str, mask: Path, *, token: str = "") -> None:
    """Click in a server that runs in another machine, and keep the mask."""
    run("nsenter", f"--target={where.pid}", "--net", sys.executable, __file__, url, mask, token)


if __name__ == "__main__":
    headers = {"Authorization": f"Bearer {sys.argv[3]}"} if sys.argv[3] else {}
    with httpx.Client(base_url=sys.argv[1], headers=headers) as outside:
        wait_for(outside)
        Path(sys.argv[2]).write_bytes(click(outside))
