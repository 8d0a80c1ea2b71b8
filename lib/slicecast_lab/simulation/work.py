"""Carry out many tasks over cores (joblib) or machines (Ray), and remember what is done.

A task is a picklable dataclass with what it needs and nothing else. It runs alone, on one thread, with nothing kept
from the task before, so its result does not depend on where or after what it ran: the same tasks give the same bytes.
"""

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import torch
from joblib import Parallel, delayed

import slicecast
from slicecast.engine.ports import DevicePredictor
from slicecast.errors import ConfigError
from slicecast.files import file_sha256
from slicecast.inference.segment import SegmentService
from slicecast.inference.settings import EngineSettings
from slicecast.models.sam2 import load_predictor
from slicecast.models.weights import choose_model, weights_path
from slicecast.training.executor import ray_cluster
from slicecast_lab.simulation.fake import FakePredictor

logger = logging.getLogger(__name__)

FAKE = "fake"  # Name of the predictor without weights, for tests of everything around the network
SOURCES = Path(slicecast.__file__).parent, Path(__file__).parents[1]  # The product and the laboratory

UNRELATED = {"server", "cli", "demo", "dicom", "campaign", "training", "benchmarks", "generated"}
"""Parts of both that no simulated result depends on."""

SHOWN_BY = {"page", "tables", "picture", "report"}  # Modules that only show results

QUIET = EngineSettings(embedding_mb=1024, idle_encode=False)
"""A task keeps nothing for others, and nothing runs beside it."""

Progress = Callable[[int, int, str], None]  # Called with the tasks done, their number, and the name of the last


@dataclass(frozen=True, slots=True)
class Setup:
    """Which model runs where."""

    model: str = ""
    device: str = "auto"

    @property
    def sha256(self) -> str:
        """Return what names the weights."""
        return FAKE if self.model == FAKE else file_sha256(weights_path(choose_model(self.model or None)))


class SimulationTask(Protocol):
    """A piece of work."""

    @property
    def name(self) -> str:
        """In words, for the progress."""

    @property
    def key(self) -> Hashable:
        """All that the result depends on, besides the model and the program; its ``repr`` is used."""

    def run(self, service: SegmentService) -> Any:
        """Carry it out; the result is JSON values."""


@dataclass(frozen=True, slots=True)
class Workers:
    """Who does the work; raises ConfigError if no processes."""

    jobs: int = 1  # processes side by side; -1: one a core
    # "" for this machine; ``auto`` for the running Ray cluster, or a new one here; or a cluster's address
    ray: str = ""

    def __post_init__(self) -> None:
        if self.jobs == 0 or self.jobs < -1:
            raise ConfigError(f"{self.jobs} processes were asked for; give 1 or more, or -1 for one a core.")


Job = tuple[int, SimulationTask, Setup]  # A task with its number


def carry_out(
    tasks: Sequence[SimulationTask],
    setup: Setup,
    workers: Workers,
    *,
    store: Path | None = None,
    progress: Progress = lambda done, total, name: None,
) -> list[Any]:
    """Carry out tasks; return their results in the same order.

    Args:
        store: JSON lines of what is done: a run that was stopped goes on where it ended.

    Raises:
        ConfigError: Ray was asked for and is not installed.
    """
    names = _names(tasks, setup)
    done = _read(store)
    missing = [n for n, name in enumerate(names) if name not in done]
    progress(len(tasks) - len(missing), len(tasks), "")
    results = _work_off([(n, tasks[n], setup) for n in missing], workers)
    for count, (number, result) in enumerate(results, start=len(tasks) - len(missing) + 1):
        done[names[number]] = result
        _note(store, names[number], result)
        progress(count, len(tasks), tasks[number].name)
    return [done[name] for name in names]


def _one(job: Job) -> tuple[int, Any]:
    """Carry out one task in this process; through JSON, so that a result is the same whether it was stored or not."""
    number, task, setup = job
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    ours = logging.getLogger("slicecast")
    level = ours.level
    ours.setLevel(logging.ERROR)
    try:
        service = SegmentService(predictor=_predictor(setup), settings=QUIET)
        return number, json.loads(json.dumps(task.run(service)))
    finally:
        torch.set_num_threads(threads)
        ours.setLevel(level)


@cache
def _predictor(setup: Setup) -> DevicePredictor:
    """Load the model once a process."""
    if setup.model == FAKE:
        return FakePredictor(image_size=64)
    return load_predictor(choose_model(setup.model or None), device=setup.device)


def _work_off(jobs: Sequence[Job], workers: Workers) -> Iterator[tuple[int, Any]]:
    """Yield results as they come."""
    if not jobs:
        return
    if workers.ray:
        yield from _with_ray(jobs, workers)
        return
    parallel = Parallel(n_jobs=workers.jobs, return_as="generator_unordered", batch_size=1)
    yield from parallel(delayed(_one)(job) for job in jobs)


def _with_ray(jobs: Sequence[Job], workers: Workers) -> Iterator[tuple[int, Any]]:
    """Spread jobs over a Ray cluster; one actor a core, unless the workers is smaller."""
    with ray_cluster(workers.ray):
        from ray.util.multiprocessing import Pool

        with Pool(workers.jobs if workers.jobs > 0 else None) as pool:
            yield from pool.imap_unordered(_one, jobs, chunksize=1)


def _names(tasks: Sequence[SimulationTask], setup: Setup) -> list[str]:
    """Name what each result depends on: task, weights, device and program."""
    around = f"{setup.sha256}/{setup.device}/{program_digest()}"
    return [hashlib.sha256(f"{around}/{task.key!r}".encode()).hexdigest()[:32] for task in tasks]


@cache
def program_digest() -> str:
    """Return what names the source that simulated results depend on."""
    digest = hashlib.sha256()
    for source in SOURCES:
        for file in sorted(source.rglob("*.py")):
            if file.relative_to(source).parts[0] not in UNRELATED and file.stem not in SHOWN_BY:
                digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _read(store: Path | None) -> dict[str, Any]:
    """Read what was done; a line that a crash cut off is left out."""
    if store is None or not store.is_file():
        return {}
    found = {}
    for line in store.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            entry = json.loads(line)
            found[entry["name"]] = entry["result"]
    return found


def _note(store: Path | None, name: str, result: Any) -> None:
    if store is None:
        return
    store.parent.mkdir(parents=True, exist_ok=True)
    with store.open("a", encoding="utf-8") as out:
        # A line of its own, even after one that a crash cut off.
        out.write(f"\n{json.dumps({'name': name, 'result': result})}")
