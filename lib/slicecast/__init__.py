"""Slicecast: one annotated slice becomes a segmented volume.

Everything a program needs is named here and loaded when it is first used, so that ``import slicecast`` stays light.
"""

import importlib
import typing

if typing.TYPE_CHECKING:
    from slicecast.engine.options import EngineOptions
    from slicecast.errors import SlicecastError
    from slicecast.inference.results import SegmentResult
    from slicecast.inference.segment import SegmentRequest, SegmentService, segment
    from slicecast.prompts import Absent, Box, Line, MaskPrompt, ObjectPrompts, Point, PromptSet
    from slicecast.volume import Geometry, Volume, read_volume, write_mask

__version__ = "0.1.0"

__all__ = [
    "Absent",
    "Box",
    "EngineOptions",
    "Geometry",
    "Line",
    "MaskPrompt",
    "ObjectPrompts",
    "Point",
    "PromptSet",
    "SegmentRequest",
    "SegmentResult",
    "SegmentService",
    "SlicecastError",
    "Volume",
    "__version__",
    "read_volume",
    "segment",
    "write_mask",
]

_HOMES = {
    "slicecast.engine.options": ("EngineOptions",),
    "slicecast.errors": ("SlicecastError",),
    "slicecast.prompts": ("Absent", "Box", "Line", "MaskPrompt", "ObjectPrompts", "Point", "PromptSet"),
    "slicecast.inference.results": ("SegmentResult",),
    "slicecast.inference.segment": ("SegmentRequest", "SegmentService", "segment"),
    "slicecast.volume": ("Geometry", "Volume", "read_volume", "write_mask"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> typing.Any:
    """Load a public name on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'slicecast' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
