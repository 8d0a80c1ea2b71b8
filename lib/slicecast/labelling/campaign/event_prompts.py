"""What was asked of the model, as the campaign's events keep it."""

from collections.abc import Mapping
from typing import Any

PROMPT_KEYS = ("foreground", "background", "roi", "slice", "axis", "range", "window")
"""Keys of a request that are prompts, besides lists of points under a label's name."""

MAX_PROMPTS = 400
"""Points kept in an event; of more, only their number."""


def prompts_of(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the prompts of an infer request for the event log: points by key, other prompts as they are."""
    found = {key: value for key, value in request.items() if key in PROMPT_KEYS or _is_points(value)}
    kept = {key: value for key, value in found.items() if value not in (None, [], "")}
    if sum(len(value) for value in kept.values() if isinstance(value, list)) <= MAX_PROMPTS:
        return kept
    return {key: len(value) if isinstance(value, list) else value for key, value in kept.items()}


def bounded(prompts: Mapping[str, Mapping[str, list[Any]]]) -> dict[str, dict[str, Any]]:
    """Return a session's prompts by kind and object for the event log; of too many, only their numbers."""
    count = sum(len(entries) for by_object in prompts.values() for entries in by_object.values())
    return {
        kind: {name: entries if count <= MAX_PROMPTS else len(entries) for name, entries in by_object.items()}
        for kind, by_object in prompts.items()
    }


def _is_points(value: Any) -> bool:
    return (
        isinstance(value, list) and bool(value) and all(isinstance(entry, list) and len(entry) == 3 for entry in value)
    )
