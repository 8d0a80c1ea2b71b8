"""What to segment, and where that lies on the engine's slices."""

from dataclasses import dataclass, field
from pathlib import Path

from slicecast.active.slices import strategy_named
from slicecast.engine.options import EngineOptions
from slicecast.engine.propagation import Prompts
from slicecast.errors import PromptError
from slicecast.prompts import PromptSet, slice_ranges, to_slice_prompts
from slicecast.volume import Reorientation, SliceAxis

MAX_OBJECTS = 255
"""Labels are uint8."""


@dataclass(frozen=True, slots=True)
class SegmentRequest:
    """What to segment.

    Args:
        image: file or DICOM folder.
        prompts: in stored voxel indices.
        axis: ``auto``, ``axial``, ``coronal`` or ``sagittal``.
        range: half-open, slice numbers along the axis, counted as stored. Default: all.
        window: window's name or ``auto``.
        slices_only: answer the prompted slices only.
        options: settings of the engine.
        slice_strategy: which slice is suggested next (`active/slices`). Default: that of `configs/engine.yaml`.
    """

    image: Path
    prompts: PromptSet
    axis: str = "auto"
    range: tuple[int, int] | None = None
    window: str = "auto"
    slices_only: bool = False
    options: EngineOptions = field(default_factory=EngineOptions)
    slice_strategy: str = ""

    def __post_init__(self) -> None:
        if self.slice_strategy:
            strategy_named(self.slice_strategy)


def place(
    request: SegmentRequest, reorientation: Reorientation, axis: SliceAxis
) -> tuple[Prompts, dict[str, tuple[int, int]]]:
    """Bring prompts and ranges to canonical slices.

    Raises:
        PromptError: a prompt lies outside the range, or there are too many objects.
    """
    if len(request.prompts.objects) > MAX_OBJECTS:
        raise PromptError(
            f"{len(request.prompts.objects)} objects were given; one mask holds at most {MAX_OBJECTS}. "
            "Segment them in several requests."
        )
    prompts = to_slice_prompts(request.prompts, reorientation, axis)
    count = reorientation.geometry.size_ijk[axis]
    chosen = _canonical_range(request.range, reorientation, axis, count)
    boxes = slice_ranges(request.prompts, reorientation, axis)
    limits = {name: _overlap(boxes[name] or chosen, chosen) for name in prompts}
    for name, (low, high) in limits.items():
        for prompt in prompts[name]:
            if not low <= prompt.slice < high and not prompt.absent:
                stored = reorientation.to_source_slice(axis, prompt.slice)
                raise PromptError(
                    f"'{name}' has a prompt on {axis.name.lower()} slice {stored}, outside the range or the 3D box "
                    "it is confined to. Widen that or remove the prompt."
                )
    return prompts, limits


def _canonical_range(
    asked: tuple[int, int] | None, reorientation: Reorientation, axis: SliceAxis, count: int
) -> tuple[int, int]:
    if asked is None:
        return 0, count
    start, stop = asked
    if not 0 <= start < stop <= count:
        raise PromptError(
            f"The range {start}:{stop} does not fit the {count} {axis.name.lower()} slices. "
            f"Give start:stop with 0 <= start < stop <= {count}."
        )
    ends = sorted(reorientation.to_canonical_slice(axis, n) for n in (start, stop - 1))
    return ends[0], ends[1] + 1


def _overlap(first: tuple[int, int], second: tuple[int, int]) -> tuple[int, int]:
    return max(first[0], second[0]), min(first[1], second[1])
