"""Devices: which one, what its errors mean, and how many threads work on a CPU."""

import contextlib
from collections.abc import Iterator

import torch

from slicecast.errors import DeviceUnavailable, OutOfMemory


def choose_device(name: str = "auto") -> torch.device:
    """Return the device of that name; raises DeviceUnavailable if it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceUnavailable(f"There is no device {name!r}. Use auto, cpu, cuda, cuda:N or mps.") from error
    usable = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not usable.get(device.type, False):
        raise DeviceUnavailable(f"The device {name!r} cannot be used on this machine. Use 'auto' or 'cpu'.")
    return device


@contextlib.contextmanager
def memory_errors(device: torch.device) -> Iterator[None]:
    """Raise OutOfMemory for what PyTorch says in several ways."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "allocate memory" not in str(error):
            raise
        raise OutOfMemory(f"The memory of {device} ran out. Close other programs, or use --device cpu.") from error


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Limit the calling thread's CPU threads for a while; None leaves them."""
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
