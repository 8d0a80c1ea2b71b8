"""What one request may bring: `limits` in `configs/server.yaml`, read by the server and by the app inside it."""

from dataclasses import dataclass, fields
from functools import cache
from typing import Any

from slicecast.config import build, read_config
from slicecast.errors import ConfigError

FILE = "server.yaml"


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What one request may bring; whatever is larger is answered with 413.

    Args:
        body_mb: largest request that brings no file, in MiB.
        upload_mb: largest request that brings files, in MiB.
        unpacked_mb: what an archive may unpack to, in MiB.
        files: of one upload or archive.
        json_depth: lists and objects inside each other.
        points: clicks of one request.
        voxels_million: of one volume, in 1024 x 1024.

    Raises:
        ConfigError: a value is not a positive whole number.
    """

    body_mb: int = 8
    upload_mb: int = 2048
    unpacked_mb: int = 8192
    files: int = 5000
    json_depth: int = 32
    points: int = 10_000
    voxels_million: int = 1024

    def __post_init__(self) -> None:
        require_positive(self)

    @property
    def voxels(self) -> int:
        """Of one volume."""
        return self.voxels_million << 20


@cache
def request_limits() -> RequestLimits:
    """Read the limits once.

    Raises:
        ConfigError: one is unknown or out of range.
    """
    return build(RequestLimits, read_config(FILE).get("limits") or {}, where=f"{FILE}: limits")


def require_positive(limits: Any) -> None:
    """Raise ConfigError for a setting that is no whole number from 1."""
    for entry in fields(limits):
        value = getattr(limits, entry.name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"The setting {entry.name} in {FILE} is {value!r}; give a whole number from 1.")
