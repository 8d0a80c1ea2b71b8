"""Shared fixtures; phantoms are in `builders.py`."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from builders import KINDS, Phantom, phantom
from hypothesis import settings

from slicecast.config import data_dir

_NOBODY = tempfile.TemporaryDirectory(prefix="slicecast-users-")
os.environ["SLICECAST_USERS"] = str(Path(_NOBODY.name) / "users.json")
"""Whoever runs the tests may have users of their own; servers that the tests start are to know none of them."""

settings.register_profile("slicecast", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("slicecast")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz-s", default=300.0, type=float, help="seconds for the slow tests of tests/fuzz together")


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the developer's own environment out of the tests."""
    for name in ("SLICECAST_CONFIGS", "SLICECAST_MODEL", "SLICECAST_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator that gives the same numbers in every run."""
    return np.random.default_rng(20240805)


@pytest.fixture(params=KINDS)
def any_phantom(request: pytest.FixtureRequest) -> Phantom:
    """Each kind of phantom in turn."""
    return phantom(request.param)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real volumes; the test is skipped where it is absent (use it with the `data` marker)."""
    folder = data_dir()
    if not folder.is_dir():
        pytest.skip(f"no real volumes at {folder}; set SLICECAST_DATA")
    return folder
