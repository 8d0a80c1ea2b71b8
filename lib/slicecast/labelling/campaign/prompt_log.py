"""What an annotator said, as it is kept in the campaign's events."""

from collections.abc import Mapping
from typing import Any

PROMPT_KEYS = ("foreground", "background", "roi", "slice", "axis", "range", "window")
"""Of a request; besides them every list of points under a label's name."""

MAX_PROMPTS = 400
"""Points kept in an event; of more, only the number."""


def prompts_of(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the annotator said, from an infer request: points by key, other prompts as they are."""
    found = {key: value for key, value in request.items() if key in PROMPT_KEYS or _is_points(value)}
    kept = {key: value for key, value in found.items() if value not in (None, [], "")}
    if sum(len(value) for value in kept.values() if isinstance(value, list)) <= MAX_PROMPTS:
        return kept
    return {key: len(value) if isinstance(value, list) else value for key, value in kept.items()}


def _is_points(value: Any) -> bool:
    return (
        isinstance(value, list) and bool(value) and all(isinstance(entry, list) and len(entry) == 3 for entry in value)
    )
