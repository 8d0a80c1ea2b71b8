"""Annotators as programs: long volumes with a pipe in them, and a client for `/slicecast/sessions`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from slicecast.volume import Geometry, Volume, write_volume

ROOT = "/slicecast/sessions"
ANSWER_LIMIT_S = 120.0
"""Longer than any loaded machine needs."""


def pipe(seed: int, *, slices: int, side: int = 48) -> Volume:
    """Generate a pipe of 100 through noise of 30, which winds a little; never the same for two seeds."""
    rng = np.random.default_rng(seed)
    j, i = np.indices((side, side))
    array = rng.normal(30, 4, (slices, side, side))
    for k in range(slices):
        x, y, _ = centre(seed, k, side=side)
        array[k][(i - x) ** 2 + (j - y) ** 2 < (side / 6) ** 2] += 70
    return Volume(array.round().astype(np.int16), Geometry((side, side, slices), (1.0, 1.0, 3.0)))


def centre(seed: int, k: int, *, side: int = 48) -> list[int]:
    """Return a voxel (i, j, k) in the middle of the pipe on slice k."""
    x = side / 2 + seed % 3 + 2 * np.sin((k + 9 * seed) / 9)
    y = side / 2 - seed % 2 + 2 * np.cos((k + 5 * seed) / 11)
    return [round(float(x)), round(float(y)), k]


def write_pipes(folder: Path, count: int, *, slices: int, side: int = 48) -> Path:
    """Write volumes `pipe0`, `pipe1` and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        write_volume(folder / f"pipe{seed}.nii.gz", pipe(seed, slices=slices, side=side))
    return folder


class SessionClient:
    """One annotator with one session.

    Args:
        url: the server.
        image: id of an image.
        name: of the annotator.
        session: address of a session that is open already.

    Raises (every call):
        httpx.HTTPError: the server cannot be reached, or refused.
    """

    def __init__(self, url: str, image: str, *, name: str, session: str | None = None) -> None:
        self.http = httpx.Client(base_url=url, timeout=ANSWER_LIMIT_S)
        self.address = session or self._open(image, name)

    def _open(self, image: str, name: str) -> str:
        return str(_good(self.http.post(ROOT, json={"image": image, "client_id": name})).headers["location"])

    def click(self, ijk: list[int], *, object: str = "pipe", positive: bool = True) -> dict[str, Any]:
        """Add a click and return the session's state."""
        prompt = {"kind": "point", "object": object, "ijk": ijk, "positive": positive}
        return _json(self.http.post(f"{self.address}/prompts", json={"prompts": [prompt]}))

    def state(self) -> dict[str, Any]:
        """Return the session's state."""
        return _json(self.http.get(self.address))

    def lines(self) -> Iterator[dict[str, Any]]:
        """Propagate, and yield each line as it comes."""
        with self.http.stream("POST", f"{self.address}/propagate") as answer:
            if answer.is_error:
                answer.read()
            yield from map(json.loads, _good(answer).iter_lines())

    def propagate(self) -> dict[str, Any]:
        """Propagate to the end and return the last line."""
        *_, last = self.lines()
        return last

    def result(self) -> bytes:
        """Return the mask's file, NRRD."""
        return _good(self.http.get(f"{self.address}/result", params={"format": "nrrd"})).content

    def close(self) -> None:
        """Close the session and the connection."""
        self.http.delete(self.address)
        self.http.close()


def _good(answer: httpx.Response) -> httpx.Response:
    return answer.raise_for_status()


def _json(answer: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = _good(answer).json()
    return found
