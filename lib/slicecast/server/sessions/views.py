"""Between the wire's models and the service's values."""

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

import numpy as np

from slicecast.engine.session import Grid, PackedMask, Painted, Prompt
from slicecast.errors import PromptError
from slicecast.inference.results import SegmentResult, SliceUpdate
from slicecast.inference.session_state import Propagated, Said, SessionState
from slicecast.prompts import Absent, Box, Point
from slicecast.server.sessions.models import (
    MAX_MASKS,
    AbsentPrompt,
    AnyPrompt,
    BoxPrompt,
    MaskPromptModel,
    NextView,
    ObjectView,
    PointPrompt,
    PromptView,
    RleModel,
    SessionView,
    SliceEvent,
    StoppedView,
    SummaryEvent,
)
from slicecast.volume.slices import decode_rle, encode_rle


def said(prompts: Iterable[AnyPrompt], grid: Callable[[], Grid]) -> list[Said]:
    """Turn prompts from the wire into the service's.

    Args:
        grid: the session's; asked for only where a slice was painted.

    Raises:
        PromptError: a painted slice does not fit.
    """
    given = list(prompts)
    painted = sum(isinstance(prompt, MaskPromptModel) for prompt in given)
    if painted > MAX_MASKS:
        raise PromptError(f"{painted} painted slices were sent; at most {MAX_MASKS} at a time. Upload them as a file.")
    return [Said(prompt.object, _item(prompt, grid)) for prompt in given]


def _item(prompt: AnyPrompt, grid: Callable[[], Grid]) -> Point | Box | Painted | Absent:
    match prompt:
        case PointPrompt():
            return Point(prompt.ijk, positive=prompt.positive)
        case BoxPrompt():
            return Box(prompt.low_ijk, prompt.high_ijk)
        case AbsentPrompt():
            return Absent(prompt.slice)
        case MaskPromptModel():
            return _painted(prompt, grid())


def _painted(prompt: MaskPromptModel, grid: Grid) -> Painted:
    count = grid.shape_kji[grid.along]
    if prompt.slice >= count:
        raise PromptError(f"There is no slice {prompt.slice} to paint; slices run from 0 to {count - 1}.")
    if prompt.rle.size != grid.shape_hw:
        raise PromptError(
            f"The mask is of {prompt.rle.size} pixels, but slices are of {grid.shape_hw} rows and columns."
        )
    mask = decode_rle(prompt.rle.counts, grid.shape_hw)
    if not mask.any():
        raise PromptError(f"The mask of slice {prompt.slice} is empty. Send the slice as absent instead.")
    return Painted(((prompt.slice, PackedMask.of(mask)),))


def session_view(state: SessionState, *, propagating: bool) -> SessionView:
    """Describe a session."""
    return SessionView(
        id=state.id,
        image=state.image_id,
        model=state.model,
        axis=state.axis,
        window=state.window,
        owner=state.owner,
        revision=state.revision,
        prompts=[_prompt_view(prompt) for prompt in state.prompts],
        objects=list(state.objects),
        accepted={name: list(slices) for name, slices in state.accepted.items()},
        can_undo=state.can_undo,
        can_redo=state.can_redo,
        propagating=propagating,
        created_at=state.created_at,
        used_at=state.used_at,
    )


def _prompt_view(prompt: Prompt) -> PromptView:
    details: dict[str, Any]
    match prompt.item:
        case Point(ijk=ijk, positive=positive):
            details = {"kind": "point", "ijk": ijk, "positive": positive}
        case Box(low_ijk=low, high_ijk=high):
            details = {"kind": "box", "low_ijk": low, "high_ijk": high}
        case Absent(slice=number):
            details = {"kind": "absent", "slices": [number]}
        case Painted(slices=slices):
            details = {"kind": "mask", "slices": [number for number, _ in slices]}
    return PromptView(id=prompt.id, object=prompt.object, **details)


def slice_event(update: SliceUpdate) -> SliceEvent:
    """Describe one structure on one slice."""
    rle = encode_rle(update.mask)
    return SliceEvent(
        slice=update.slice,
        object=update.object,
        rle=RleModel(size=(rle["size"][0], rle["size"][1]), counts=rle["counts"]),
        confidence=_finite(update.confidence),
        ms=round(1000 * update.seconds, 1),
        reused=update.reused,
        final=update.final,
    )


def summary_event(done: Propagated) -> SummaryEvent:
    """Describe what a propagation came to."""
    result = done.result
    hint = result.next_slice
    return SummaryEvent(
        revision=done.revision,
        cancelled=result.partial,
        recomputed=result.slices_recomputed,
        reused=result.slices_reused,
        stopped=[StoppedView(object=s.object, slice=s.slice, reason=s.reason) for s in result.stopped],
        next_slice=None if hint is None else NextView(**{**asdict(hint), "score": _finite(hint.score)}),
        good_enough=result.good_enough,
        calibrated=result.calibrated,
        objects=_objects(result),
        seconds={name: round(value, 4) for name, value in result.seconds.items()},
        warnings=list(result.warnings),
    )


def _objects(result: SegmentResult) -> dict[str, ObjectView]:
    voxels = np.bincount(result.mask.ravel(), minlength=max(result.labels.values(), default=0) + 1)
    ml = result.geometry.voxel_volume_ml
    return {
        name: ObjectView(value=value, voxels=int(voxels[value]), ml=round(float(voxels[value]) * ml, 3))
        for name, value in result.labels.items()
    }


def _finite(value: float) -> float | None:
    """JSON has no NaN."""
    return round(float(value), 4) if math.isfinite(value) else None
