"""Under what circumstances a result came about: command, code, model, machine, date."""

import datetime
import os
import platform
import resource
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import torch

import slicecast
from slicecast.config import CHECKOUT
from slicecast.files import file_sha256
from slicecast.models.registry import ModelSpec
from slicecast.models.weights import weights_path

CPU_INFO, STATUS = Path("/proc/cpuinfo"), Path("/proc/self/status")
PEAK = "VmHWM:"

RESULTS = "docs/results"  # A page that is written again does not change what it measures


def provenance(spec: ModelSpec, command: str, *, device: str, now: datetime.datetime | None = None) -> dict[str, Any]:
    """Describe a run as JSON values.

    Args:
        command: as typed.
        device: the model ran on.
        now: with its time zone; the present by default.
    """
    now = now or datetime.datetime.now(datetime.UTC)
    return {
        "command": command,
        "date": now.astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "version": slicecast.__version__,
        "commit": _commit(),
        "model": {"name": spec.name, "sha256": file_sha256(weights_path(spec)), "image_size": spec.image_size},
        "machine": {
            "device": device if not device.startswith("cuda") else torch.cuda.get_device_name(),
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30),
            "load": [round(value, 1) for value in os.getloadavg()],
            "threads": torch.get_num_threads(),
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
    }


def command_line(program: str) -> str:
    """Return the command as typed; `program` is how it was started, such as ``slicecast``."""
    return f"{program} {shlex.join(sys.argv[1:])}".strip()


def peak_rss_mib() -> int:
    """Return the most memory this process has had, in MiB.

    On Linux since it began: `ru_maxrss` starts with what the parent had when it forked.
    """
    lines = STATUS.read_text(encoding="utf-8").splitlines() if STATUS.is_file() else []
    peaks = [int(line.split()[1]) // 1024 for line in lines if line.startswith(PEAK)]
    if peaks:
        return peaks[0]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (1 << 20 if sys.platform == "darwin" else 1 << 10)


def _commit() -> str | None:
    """Return the commit, with `+` where tracked files differ from it; None outside a checkout."""
    commit = _git("rev-parse", "--short=12", "HEAD")
    if commit is None:
        return None
    return commit + ("+" if _git("status", "--porcelain", "-uno", "--", ".", f":!{RESULTS}") else "")


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _cpu() -> str:
    lines = CPU_INFO.read_text(encoding="utf-8").splitlines() if CPU_INFO.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "unknown")
