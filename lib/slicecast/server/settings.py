"""The server's limits, from `configs/server.yaml`."""

from dataclasses import dataclass, field
from functools import cache
from typing import Any

from slicecast.config import build, read_config
from slicecast.inference.limits import RequestLimits, require_positive
from slicecast.inference.queue import QueueSettings
from slicecast.server.auth import AuthSettings

FILE = "server.yaml"


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """Limits of the routes below `/slicecast/sessions`.

    Args:
        per_user: open sessions of one user.
        body_mb: largest request, in MiB.

    Raises:
        ConfigError: a value is not a positive whole number.
    """

    per_user: int = 16
    body_mb: int = 512

    def __post_init__(self) -> None:
        require_positive(self)


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """Limits of the way to the DICOM server.

    Args:
        connections: open at a time; more requests wait for one of them.
        body_mb: largest request that is passed on, in MiB.

    Raises:
        ConfigError: a value is not a positive whole number.
    """

    connections: int = 32
    body_mb: int = 2048

    def __post_init__(self) -> None:
        require_positive(self)


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """All limits.

    Args:
        queue: of work on the device.
        sessions: of the routes for sessions.
        proxy: of the way to the DICOM server.
        limits: of one request.
        auth: logins.
    """

    queue: QueueSettings = field(default_factory=QueueSettings)
    sessions: SessionSettings = field(default_factory=SessionSettings)
    proxy: ProxySettings = field(default_factory=ProxySettings)
    limits: RequestLimits = field(default_factory=RequestLimits)
    auth: AuthSettings = field(default_factory=AuthSettings)


@cache
def server_settings() -> ServerSettings:
    """Read `configs/server.yaml` once.

    Raises:
        ConfigError: the file is missing, or a setting is unknown or out of range.
    """
    parts: dict[str, Any] = {
        "queue": QueueSettings,
        "sessions": SessionSettings,
        "proxy": ProxySettings,
        "limits": RequestLimits,
        "auth": AuthSettings,
    }
    content = read_config(FILE, known=parts)
    return ServerSettings(
        **{name: build(parts[name], given, where=f"{FILE}: {name}") for name, given in content.items()}
    )
