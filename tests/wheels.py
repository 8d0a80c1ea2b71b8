"""Builds the wheel from a copy of the checkout."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
VIEWER = "lib/slicecast/server/annotate/node_modules"
BUILT_FROM = ("pyproject.toml", "README.md", "LICENSE", "requirements.txt", "lib", "configs", "apps")
PIP = (sys.executable, "-m", "pip", "--quiet")


def run(*words: object) -> None:
    """Run a command that must succeed and does not see the source tree."""
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([*map(str, words)], env=own, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def build_wheel(place: Path) -> Path:
    """Build the wheel into a folder."""
    if not (ROOT / VIEWER).is_dir():
        pytest.skip("the annotation page's viewer is missing: make install")
    (place / "source").mkdir()
    for name in BUILT_FROM:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, place / "source" / name)
    run(*PIP, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", place, place / "source")
    shutil.rmtree(place / "source")
    return next(place.glob("*.whl"))
