"""What tests of a crowded server share: long volumes, and a client for sessions."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from slicecast.volume import Geometry, Volume, write_volume

ROOT = "/slicecast/sessions"
WAIT_S = 120.0
"""Longer than any loaded machine needs."""


def pipe(seed: int, *, slices: int, side: int = 48) -> Volume:
    """A pipe of 100 through noise of 30, which winds a little; never the same for two seeds."""
    rng = np.random.default_rng(seed)
    j, i = np.indices((side, side))
    array = rng.normal(30, 4, (slices, side, side))
    for k in range(slices):
        x, y, _ = centre(seed, k, side=side)
        array[k][(i - x) ** 2 + (j - y) ** 2 < (side / 6) ** 2] += 70
    geometry = Geometry((side, side, slices), (1.0, 1.0, 3.0))
    return Volume(array.round().astype(np.int16), geometry)


def centre(seed: int, k: int, *, side: int = 48) -> list[int]:
    """A voxel in the middle of the pipe."""
    x = side / 2 + seed % 3 + 2 * np.sin((k + 9 * seed) / 9)
    y = side / 2 - seed % 2 + 2 * np.cos((k + 5 * seed) / 11)
    return [round(float(x)), round(float(y)), k]


def write_pipes(folder: Path, count: int, *, slices: int) -> Path:
    """Write volumes pipe0, pipe1 and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        write_volume(folder / f"pipe{seed}.nii.gz", pipe(seed, slices=slices))
    return folder


class SessionClient:
    """One annotator with one session."""

    def __init__(self, url: str, image: str, *, name: str, session: str | None = None) -> None:
        self.http = httpx.Client(base_url=url, timeout=WAIT_S)
        self.address = session or self._open(image, name)

    def _open(self, image: str, name: str) -> str:
        answer = self.http.post(ROOT, json={"image": image, "client_id": name})
        answer.raise_for_status()
        return str(answer.headers["location"])

    def click(self, ijk: list[int], *, object: str = "pipe", positive: bool = True) -> dict[str, Any]:
        """Add a click."""
        prompt = {"kind": "point", "object": object, "ijk": ijk, "positive": positive}
        answer = self.http.post(f"{self.address}/prompts", json={"prompts": [prompt]})
        answer.raise_for_status()
        return answer.json()

    def state(self) -> dict[str, Any]:
        """See the session."""
        answer = self.http.get(self.address)
        answer.raise_for_status()
        return answer.json()

    def lines(self) -> Iterator[dict[str, Any]]:
        """Propagate and yield the lines."""
        with self.http.stream("POST", f"{self.address}/propagate") as answer:
            if answer.status_code != 200:
                answer.read()
            answer.raise_for_status()
            yield from map(json.loads, answer.iter_lines())

    def propagate(self) -> dict[str, Any]:
        """Propagate to the end and return the summary."""
        *_, summary = self.lines()
        assert summary["type"] == "summary", summary
        return summary

    def result(self) -> bytes:
        """Get the mask's file."""
        answer = self.http.get(f"{self.address}/result", params={"format": "nrrd"})
        answer.raise_for_status()
        return answer.content

    def close(self) -> None:
        """Close the session and the connection."""
        self.http.delete(self.address)
        self.http.close()


def wait_until(condition: Any, *, limit_s: float = WAIT_S) -> None:
    """Wait, and fail instead of hanging."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
