"""Prompts of the annotator, and their place on the slices."""

from slicecast.prompts.mapping import (
    SlicePrompt,
    first_clicked,
    found_by_click,
    painted_slices,
    place,
    slice_to_source_ijk,
    standing_points,
    to_slice_prompts,
)
from slicecast.prompts.model import Absent, Box, Line, MaskPrompt, ObjectPrompts, Point, PromptSet

__all__ = [
    "Absent",
    "Box",
    "Line",
    "MaskPrompt",
    "ObjectPrompts",
    "Point",
    "PromptSet",
    "SlicePrompt",
    "first_clicked",
    "found_by_click",
    "painted_slices",
    "place",
    "slice_to_source_ijk",
    "standing_points",
    "to_slice_prompts",
]
