"""Under what circumstances a result came about: command, code, model, machine, date."""

import datetime
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import psutil
import torch

import slicecast
from slicecast.config import CHECKOUT
from slicecast.models.registry import ModelSpec
from slicecast.models.weights import file_sha256, weights_path

CPU_INFO = Path("/proc/cpuinfo")


def provenance(spec: ModelSpec, command: str, *, device: str, now: datetime.datetime) -> dict[str, Any]:
    """Describe a run as JSON values.

    Args:
        command: as typed.
        device: the model ran on.
        now: with its time zone.
    """
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


RESULTS = "docs/results"
"""A page that is written again does not change what it measures."""


def _commit() -> str | None:
    """Return the commit, with `+` where tracked files differ from it; None outside a checkout."""
    commit = _git("rev-parse", "--short=12", "HEAD")
    return (
        None
        if commit is None
        else commit + ("+" if _git("status", "--porcelain", "-uno", "--", ".", f":!{RESULTS}") else "")
    )


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
