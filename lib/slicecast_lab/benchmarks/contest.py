"""Contestants of the speed benchmark, each in a process of its own: the product, and SAM 2's video predictor directly.

Both read a scan's file, segment it from clicks and write a mask's file; that is what is timed. MONAI Label's task is
the third: ``slicecast_lab.evaluation.monailabel``.
"""

import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from slicecast.engine.options import EngineOptions
from slicecast.inference.segment import SegmentRequest, SegmentService
from slicecast.models.sam2 import load_predictor
from slicecast.models.video import load_video_tracker
from slicecast.models.weights import choose_model
from slicecast.prompts import ObjectPrompts, Point, PromptSet
from slicecast.volume import read_volume, write_mask
from slicecast_lab.benchmarks.speed_scans import IJK

T = TypeVar("T")

Clicks = Mapping[str, Sequence[IJK]]
"""Voxels on each object."""

WHOLE = {"gone_slices": 0, "like_share": 0.0, "zoom": "off", "evidence": "off"}
"""Options with which the product does the work that SAM 2 does: every slice, whole, and nothing else."""

WINDOW = "0:255"
"""The grey values that the others see."""

PEAK = "VmHWM:"
OPERATIONS = 8


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request cost.

    Args:
        seconds: from the scan's file to the mask's.
        peak_mib: most memory that the process has had so far.
        voxels: in the mask.
        walked, recomputed, encoded: slices; 0 where the contestant does not say.
        parts: seconds of each part of the work.
    """

    seconds: float
    peak_mib: int
    voxels: int
    walked: int = 0
    recomputed: int = 0
    encoded: int = 0
    parts: dict[str, float] = field(default_factory=dict)


def peak_mib() -> int:
    """Return the most memory this process has had since it began; 0 where the system does not say.

    Not `ru_maxrss`: that starts with what the parent had when it forked.
    """
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.is_file() else []
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith(PEAK)), 0)


class Product:
    """The product, as a program uses it: one service, nothing in its caches after `fresh`."""

    def __init__(self, model: str) -> None:
        self._predictor = load_predictor(choose_model(model), device="cpu")
        self.fresh()

    def fresh(self) -> None:
        """Forget everything but the network."""
        self._service = SegmentService(predictor=self._predictor)

    def segment(self, image: Path, clicks: Clicks, options: Mapping[str, Any] | None = None) -> Answer:
        """Segment from all clicks so far; what an earlier request worked out is used."""
        objects = [ObjectPrompts(name, points=tuple(map(Point, places))) for name, places in clicks.items()]
        start = time.perf_counter()
        prompts, settings = PromptSet(tuple(objects)), EngineOptions(**(options or {}))
        request = SegmentRequest(image, prompts, window=WINDOW, options=settings)
        result = self._service.segment(request)
        write_mask(image.with_suffix(".ours.nii.gz"), result.mask, result.geometry)
        seconds = time.perf_counter() - start
        counts = (result.slices_walked, result.slices_recomputed, result.slices_encoded)
        return Answer(seconds, peak_mib(), int((result.mask > 0).sum()), *counts, parts=dict(result.seconds))

    def profile(self, image: Path, clicks: Clicks, options: Mapping[str, Any] | None = None) -> list[tuple[str, float]]:
        """Return the operations that a request spends most time in, as shares of the time of all of them."""
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            self.segment(image, clicks, options)
        spent = {entry.key: entry.self_cpu_time_total for entry in seen.key_averages()}
        total = sum(spent.values())
        largest = sorted(spent, key=lambda key: -spent[key])[:OPERATIONS]
        return [(key, spent[key] / total) for key in largest]


class Direct:
    """SAM 2's video predictor, driven as its examples do: clicks, then forwards, then backwards."""

    def __init__(self, model: str) -> None:
        self._tracker = load_video_tracker(choose_model(model), device="cpu")

    def fresh(self) -> None:
        """Nothing is kept between requests."""

    def segment(self, image: Path, clicks: Clicks) -> Answer:
        """Segment one object over the whole volume."""
        (places,) = clicks.values()
        start = time.perf_counter()
        volume = read_volume(image)
        mask = np.zeros(volume.array.shape, dtype=np.uint8)
        with self._tracker.open(list(volume.array.astype(np.uint8))) as clip:
            for number in sorted({k for _, _, k in places}):
                here = [(i, j) for i, j, k in places if k == number]
                clip.click(number, here, [1] * len(here))
            for reverse in (False, True):
                for number, logits in clip.propagate(reverse=reverse):
                    mask[number] = logits > 0
        write_mask(image.with_suffix(".direct.nii.gz"), mask, volume.geometry)
        return Answer(time.perf_counter() - start, peak_mib(), int((mask > 0).sum()), walked=len(mask))


KINDS = {"ours": Product, "direct": Direct}


class Contestant:
    """One of KINDS in a fresh process; a context manager.

    Args:
        model: name in the registry.
        threads: of PyTorch.
    """

    def __init__(self, kind: Literal["ours", "direct"], model: str, *, threads: int) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, mp_context=spawn, initializer=_start, initargs=(kind, model, threads))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def ask(self, method: str, *values: Any) -> Any:
        """Call a method there."""
        return self._pool.submit(_ask, method, values).result()


def in_its_own_process(work: Callable[..., T], *values: Any) -> T:
    """Call a function in a fresh process, so that its memory is gone afterwards."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *values).result()


def _start(kind: str, model: str, threads: int) -> None:
    torch.set_num_threads(threads)
    _here["contestant"] = KINDS[kind](model)


def _ask(method: str, values: tuple[Any, ...]) -> Any:
    return getattr(_here["contestant"], method)(*values)


_here: dict[str, Any] = {}
"""Of a process of `Contestant`: what it runs."""
