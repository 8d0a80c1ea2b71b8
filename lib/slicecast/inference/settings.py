"""Settings of the engine (`configs/engine.yaml`), and what one request may bring (`limits` in `configs/server.yaml`).

The limits are here and not with the server because the MONAI Label app keeps them too.
"""

from dataclasses import dataclass, field
from functools import cache

import psutil

from slicecast.active.slices import DEFAULT, strategy_named
from slicecast.config import build, config_dir, read_config, require_numbers
from slicecast.engine.options import EngineOptions
from slicecast.errors import ConfigError, TooLarge

FILE = "engine.yaml"

SERVER_FILE = "server.yaml"

MB = 1 << 20

FREE_SHARE = 0.25  # Of the free memory that encoded slices may take where the budget is `auto`
MOST_WORKERS = 64

LEAST_MB, MOST_MB = 256, 8192  # Bounds of that


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """What a service keeps and does in the background; raises ConfigError if a value is out of range."""

    embedding_mb: int | str = "auto"  # MiB of encoded slices; ``auto``: a quarter of the free memory
    answer_mb: int = 512  # MiB of the model's answers
    idle_encode: bool = True  # encode the rest of a volume while the server is idle
    compile: bool = False  # let PyTorch compile the network, on a GPU only
    openvino: bool = True  # let OpenVINO compute it, on a CPU only and where it is installed
    workers: int = 1  # processes that answer requests, each with a model and caches of its own; 1: the server's own
    slice_strategy: str = DEFAULT  # which slice is suggested next, unless a request chooses
    ray: str = ""  # address of a Ray cluster for the folds of fine-tuning and for batches, or `auto`; "": this machine
    ray_gpus: float = 0.0  # share of a GPU that a fold, or an image of a batch, takes there
    # how prompts are propagated, unless a request or session has options of its own
    propagation: EngineOptions = field(default_factory=EngineOptions)

    def __post_init__(self) -> None:
        if self.embedding_mb != "auto":
            require_numbers(self, "embedding_mb", where=FILE)
        require_numbers(self, "answer_mb", low=0, where=FILE)
        require_numbers(self, "workers", high=MOST_WORKERS, where=FILE)
        require_numbers(self, "ray_gpus", low=0, whole=False, where=FILE)
        for name in ("idle_encode", "compile", "openvino"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} is {getattr(self, name)!r} in {FILE}; it must be true or false.")
        strategy_named(self.slice_strategy)
        if not isinstance(self.ray, str):
            raise ConfigError(f"ray is {self.ray!r} in {FILE}; it must be a cluster's address, auto, or empty.")

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
    content = read_config(FILE)
    given = content.get("propagation") or {}
    for name in ("zoom", "evidence"):
        if isinstance(given, dict) and isinstance(given.get(name), bool):  # YAML reads on and off as truth values
            given[name] = "on" if given[name] else "off"
    return build(EngineSettings, {**content, "propagation": given}, where=FILE)


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What one request may bring; whatever is larger is answered with 413.

    Raises:
        ConfigError: a value is not a positive whole number.
    """

    body_mb: int = 8  # largest request that brings no file, in MiB
    upload_mb: int = 2048  # largest request that brings files, in MiB
    unpacked_mb: int = 8192  # what an archive may unpack to, in MiB
    files: int = 5000  # of one upload or archive
    json_mb: int = 1  # JSON, and forms without files, in MiB
    json_depth: int = 32  # lists and objects inside each other
    json_nodes: int = 200_000  # values and keys of JSON
    points: int = 10_000  # clicks of one request, or that count in one session
    voxels_million: int = 1024  # of one volume, in 1024 x 1024
    voxels_at_once_million: int = 1024  # of all volumes that are being read at a time; more wait, then get 503

    def __post_init__(self) -> None:
        require_numbers(self, where=SERVER_FILE)

    @property
    def json_bytes(self) -> int:
        """Of JSON, and of forms without files."""
        return self.json_mb << 20

    @property
    def voxels(self) -> int:
        """Of one volume."""
        return self.voxels_million << 20

    @property
    def voxels_at_once(self) -> int:
        """Of all volumes that are being read at a time."""
        return self.voxels_at_once_million << 20


@cache
def request_limits() -> RequestLimits:
    """Read the limits once; raises ConfigError if one is unknown or out of range."""
    return build(RequestLimits, read_config(SERVER_FILE).get("limits") or {}, where=f"{SERVER_FILE}: limits")


def require_few_points(count: int) -> None:
    """Raise TooLarge for more clicks than one request, or one session, may hold."""
    most = request_limits().points
    if count > most:
        raise TooLarge(f"{count} points were sent; at most {most} are taken. Paint a slice instead.")
