"""Every error that Slicecast raises on purpose.

SlicecastError
├── InputError (ValueError)        the caller's fault: 422
│   ├── GeometryError                  grids that do not fit together
│   ├── VolumeError                    a file that is not a usable 3D scan
│   ├── PromptError                    clicks, boxes or masks that cannot be used
│   ├── TooLarge                       more than is accepted: 413
│   │   └── VolumeTooLarge                 also a VolumeError
│   └── ConfigError                    a setting that is unknown or out of range
├── NotFound (LookupError)         404
│   ├── UnknownImage
│   ├── UnknownModel
│   └── UnknownSession
├── StateError (RuntimeError)      valid, but not in the present state
│   ├── Conflict                       409
│   ├── SessionClosed                  410
│   └── TooMany                        429
├── ResourceError (RuntimeError)   the machine's state: 503
│   ├── WeightsMissing
│   ├── WeightsCorrupt
│   ├── DeviceUnavailable
│   ├── OutOfMemory
│   ├── UpgradeNeeded
│   ├── QueueFull
│   ├── WorkerDied
│   └── ReadingFull
└── Cancelled                      the user stopped the work: 499

A message says what was wrong, the value, and the remedy.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

RETRY_AFTER = {"Retry-After": "5"}  # Seconds that a client should wait before it asks a busy server again


class SlicecastError(Exception):
    """Root of all errors raised on purpose; `status` and `headers` are those of the HTTP answer it becomes."""

    status: ClassVar[int] = 500
    headers: Mapping[str, str] = MappingProxyType({})


class InputError(SlicecastError, ValueError):
    """The request is invalid as it stands."""

    status = 422


class GeometryError(InputError):
    """Two grids do not fit together, or one is not a valid grid."""


class VolumeError(InputError):
    """A file cannot be read as one 3D scan of numbers."""


class PromptError(InputError):
    """Clicks, boxes or masks cannot be used on this volume."""


class TooLarge(InputError):
    """More was sent than is accepted."""

    status = 413


class VolumeTooLarge(VolumeError, TooLarge):
    """A volume claims more voxels than are read."""


class ConfigError(InputError):
    """A setting is unknown, of the wrong type or out of range."""


class NotFound(SlicecastError, LookupError):
    """Something named in the request does not exist."""

    status = 404


class UnknownImage(NotFound):
    """No image of that id in the studies."""


class UnknownModel(NotFound):
    """No model of that name in the registry."""


class UnknownSession(NotFound):
    """No session of that id."""


class StateError(SlicecastError, RuntimeError):
    """The request is valid, but not in the present state."""

    status = 409


class Conflict(StateError):
    """Another user holds it, or it has changed since it was read."""

    status = 409


class SessionClosed(StateError):
    """The session existed and has ended."""

    status = 410


class TooMany(StateError):
    """The user has reached the limit for one user."""

    status = 429
    headers = RETRY_AFTER


class ResourceError(SlicecastError, RuntimeError):
    """The machine lacks something: weights, device, memory or room in the queue."""

    status = 503
    headers = RETRY_AFTER


class WeightsMissing(ResourceError):
    """The weights file is not on this machine."""


class WeightsCorrupt(ResourceError):
    """The weights file is not the one that was asked for."""


class DeviceUnavailable(ResourceError):
    """The device that was asked for cannot be used."""


class OutOfMemory(ResourceError):
    """The device ran out of memory and no fallback was left."""


class UpgradeNeeded(ResourceError):
    """A database is an earlier version's."""


class QueueFull(ResourceError):
    """Too much work is waiting; try again later."""


class WorkerDied(ResourceError):
    """The process that worked on a request ended; `working` is false where it ended before it began."""

    working: bool = True


class ReadingFull(ResourceError):
    """As many voxels are being read as may be at once; try again later."""


class Cancelled(SlicecastError):
    """The work was stopped by the user; what was done is kept."""

    status = 499
