"""Carry out the parts of a work: in processes of this machine, or as tasks of a Ray cluster.

A part is picklable and takes its data from files by path. That of a training leaves checkpoints there, so one that is
run again goes on where it was. On a cluster the studies must therefore lie under the same path on every machine.
"""

import logging
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, TypeVar

from slicecast.errors import ConfigError

T = TypeVar("T")

RETRIES = 3  # How often a part is begun again whose worker or machine died
KNOCK_S = 5.0  # A cluster must take a connection within this time


def run_parts(parts: Sequence[Callable[[], T]], *, workers: int, ray: str = "", gpus: float = 0.0) -> list[T]:
    """Call all parts; return what they return, in their order; see :func:`each_part`."""
    return list(each_part(parts, workers=workers, ray=ray, gpus=gpus))


def each_part(parts: Sequence[Callable[[], T]], *, workers: int, ray: str = "", gpus: float = 0.0) -> Iterator[T]:
    """Call all parts; yield what they return, in their order. Closed early, it begins no further part.

    Args:
        workers: parts at a time on this machine; 1: in this process. A cluster has as many as it has room for.
        ray: "" for this machine; a cluster's address, or `auto` for the one that runs here, else a new one.
        gpus: of a cluster's GPUs, the share that a part takes.

    Raises:
        ConfigError: Ray is not installed.
    """
    if ray:
        with ray_cluster(ray) as cluster:
            task = cluster.remote(num_gpus=gpus, max_retries=RETRIES)(_call)
            left = deque(task.remote(part) for part in parts)
            try:
                while left:
                    yield cluster.get(left[0])
                    left.popleft()
            finally:
                for begun in left:
                    cluster.cancel(begun)
    elif workers == 1:
        yield from (part() for part in parts)
    else:
        with ProcessPoolExecutor(min(workers, len(parts)), mp_context=get_context("spawn")) as pool:
            yield from pool.map(_call, parts)


def _call(part: Callable[[], T]) -> T:
    return part()


@contextmanager
def ray_cluster(address: str) -> Iterator[Any]:
    """Join a Ray cluster while the block lasts, and give the module `ray`; `auto` starts one where none runs.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster at the address.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError('Ray is asked for and not here. Install it with: pip install "slicecast[ray]"') from error
    if ray.is_initialized():
        yield ray
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address != "auto":
        _knock(address)
    try:
        ray.init(address=address, **quiet)
    except ConnectionError:  # only `auto` comes here
        ray.init(include_dashboard=False, **quiet)
    try:
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise ConfigError where nobody listens: Ray itself waits for minutes, and then ends the process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=KNOCK_S).close()
    except (OSError, ValueError) as error:
        raise ConfigError(f"There is no Ray cluster at {address}. Start one with: ray start --head") from error
