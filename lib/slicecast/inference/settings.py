"""Settings of the engine's memory and background work: `configs/engine.yaml`."""

from dataclasses import dataclass
from typing import Any

import psutil

from slicecast.active.slices import DEFAULT, strategy_named
from slicecast.config import build, config_dir, read_config
from slicecast.errors import ConfigError

FILE = "engine.yaml"

MB = 1 << 20

FREE_SHARE = 0.25
"""Of the free memory that encoded slices may take where the budget is `auto`."""

LEAST_MB, MOST_MB = 256, 8192
"""Bounds of that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """What a service keeps and does in the background.

    Args:
        embedding_mb: MiB of encoded slices; ``auto``: a quarter of the free memory.
        answer_mb: MiB of the model's answers.
        disk_mb: MiB of encoded slices on the disk; 0: none.
        idle_encode: encode the rest of a volume while nobody waits.
        compile: let PyTorch compile the network, on a GPU only.
        slice_strategy: which slice is suggested next, where a request does not say.

    Raises:
        ConfigError: a value is out of range.
    """

    embedding_mb: int | str = "auto"
    answer_mb: int = 512
    disk_mb: int = 0
    idle_encode: bool = True
    compile: bool = False
    slice_strategy: str = DEFAULT

    def __post_init__(self) -> None:
        if self.embedding_mb != "auto":
            _require_whole("embedding_mb", self.embedding_mb, least=1)
        _require_whole("answer_mb", self.answer_mb, least=0)
        _require_whole("disk_mb", self.disk_mb, least=0)
        for name in ("idle_encode", "compile"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} is {getattr(self, name)!r} in {FILE}; it must be true or false.")
        strategy_named(self.slice_strategy)

    def embedding_bytes(self, free_bytes: int | None = None) -> int:
        """Return the budget of encoded slices.

        Args:
            free_bytes: free memory of the device that holds them. Default: the computer's.
        """
        if isinstance(self.embedding_mb, int):
            return self.embedding_mb * MB
        free = psutil.virtual_memory().available if free_bytes is None else free_bytes
        return int(min(max(free * FREE_SHARE, LEAST_MB * MB), MOST_MB * MB))


def engine_settings() -> EngineSettings:
    """Read the settings; what is not set has its default, and so has everything where there is no file.

    Raises:
        ConfigError: a setting is unknown or out of range.
    """
    if not (config_dir() / FILE).is_file():
        return EngineSettings()
    return build(EngineSettings, read_config(FILE), where=FILE)


def _require_whole(name: str, value: Any, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name} is {value!r} in {FILE}; it must be a whole number of MiB from {least} on.")
