"""Comparing with what is stored in `recorded/`, and one server for these tests.

`python tests/golden/update.py` writes the masks anew, with --recordings also the session's and the campaign's logs.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from golden import surface
from golden.product import copy_studies, serving
from golden.work import (
    copy_sessions,
    digest,
    record_logs,
    with_second_readers,
    work_in_campaign,
    work_in_session,
)

RECORDED = Path(__file__).parent / "recorded"
Check = Callable[[str, Any], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="store what the tests find instead of comparing it")
    parser.addoption("--record-golden", action="store_true", help="record the logs anew, too")


@pytest.fixture(scope="session")
def updating(request: pytest.FixtureRequest) -> bool:
    """Whether the stored files are to be written anew."""
    return bool(request.config.getoption("--update-golden", default=False))


@pytest.fixture(scope="session")
def golden(updating: bool) -> Check:
    """Compare a value of JSON's types with `recorded/NAME.json`."""

    def check(name: str, value: Any) -> None:
        if updating:
            store(name, value)
        assert value == stored(name)

    return check


def store(name: str, value: Any) -> None:
    """Write `recorded/NAME.json`."""
    (RECORDED / f"{name}.json").write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def stored(name: str) -> Any:
    """Read `recorded/NAME.json`."""
    return json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def golden_mask(updating: bool) -> Callable[..., None]:
    """Compare a mask, byte for byte, and what is said with it, with what is stored under a name."""

    def check(name: str, mask: np.ndarray, **said: Any) -> None:
        found = {**described(mask), **said}
        if updating:
            store("masks", {**(stored("masks") if (RECORDED / "masks.json").exists() else {}), name: found})
            store_mask(name, mask)
        assert found == stored("masks").get(name), far_off(name, mask)

    return check


def described(mask: np.ndarray) -> dict[str, Any]:
    """Return what is compared of a mask."""
    values, counts = np.unique(mask[mask > 0], return_counts=True)
    voxels = {str(value): int(count) for value, count in zip(values, counts, strict=True)}
    return {"sha256": digest(mask), "shape": list(mask.shape), "dtype": str(mask.dtype), "voxels": voxels}


def store_mask(name: str, mask: np.ndarray) -> None:
    """Put a mask into `recorded/masks.npz`."""
    file = RECORDED / "masks.npz"
    before = dict(np.load(file)) if file.exists() else {}
    np.savez_compressed(file, **{**before, name: mask})


def far_off(name: str, mask: np.ndarray) -> str:
    """Say how far a mask is from the stored one."""
    with np.load(RECORDED / "masks.npz") as arrays:
        old = arrays[name] if name in arrays else np.zeros(0)
    if old.shape != mask.shape:
        return f"{name}: shape {mask.shape}, was {old.shape}"
    return f"{name}: {int((old != mask).sum())} voxels differ, {int((old > 0).sum())} were not empty"


@pytest.fixture(scope="session")
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stored files, with the logs recorded anew if that is wanted."""
    if request.config.getoption("--record-golden", default=False):
        record_logs(RECORDED, tmp_path_factory.mktemp("record"))
    return RECORDED


@dataclass(frozen=True)
class Place:
    """A server of today, after today's work at it, with the sessions of old in its folder.

    Args:
        client: names nobody.
        studies: its scans.
        sessions: folder of its sessions.
        session: id of the one made today.
        mask: the answer of that session, uint8 [k, j, i].
    """

    client: httpx.Client
    studies: Path
    sessions: Path
    session: str
    mask: np.ndarray


@pytest.fixture(scope="session")
def place(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Serve the sample scans, and do the recorded work again."""
    folder = tmp_path_factory.mktemp("golden")
    studies = copy_studies(folder / "studies")
    sessions = copy_sessions(files, folder / "app" / "sessions", studies)
    with serving(studies, folder / "app", configs=with_second_readers(folder / "configs")) as client:
        session, mask = work_in_session(client, folder)
        work_in_campaign(client, studies, folder)
        yield Place(client, studies, sessions, session, mask)


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The whole application, in this process."""
    with surface.server(tmp_path_factory.mktemp("golden") / "server") as client:
        yield client
