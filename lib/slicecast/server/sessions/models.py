"""HTTP models of sessions: requests are validated, answers described for OpenAPI, and both converted.

Voxel indices are (i, j, k) of the stored volume, from 0. Slices are counted as stored, along the session's axis.
"""

import math
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from slicecast.engine.session import Add, Item, PackedMask, Painted
from slicecast.engine.session_prompts import Grid, Mask
from slicecast.errors import PromptError, TooLarge
from slicecast.inference.results import SliceUpdate, objects_of
from slicecast.inference.sessions import Propagated, SessionState
from slicecast.prompts import Absent, Box, Line, Point
from slicecast.volume.slices import decode_rle, encode_rle

SliceStrategyName = Literal["strided", "worst", "disagree", "value"]  # The names of `active/slices`

MAX_PROMPTS = 10_000  # Of one request; `session_prompts` counts them, because more are answered with 413
MAX_MASKS = 256  # Painted slices of one request

Index = Annotated[int, Field(ge=0, lt=1 << 31)]
Voxel = Annotated[tuple[Index, Index, Index], Field(description="Voxel index (i, j, k), i fastest, from 0")]
Name = Annotated[str, Field(min_length=1, max_length=200, description="Name of the structure")]
ClientId = Annotated[
    str | None, Field(max_length=200, description="Your name, where logins are off; decides whose session it is")
]


class Strict(BaseModel):
    """A request; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RleModel(Strict):
    """A painted slice as COCO's compressed run lengths, column by column."""

    size: tuple[Index, Index] = Field(description="Rows and columns of the stored slice")
    counts: str = Field(max_length=4_000_000)


class PointPrompt(Strict):
    """A click on the structure, or beside it."""

    kind: Literal["point"]
    object: Name
    ijk: Voxel
    positive: bool = True


class LinePrompt(Strict):
    """A line that runs inside the structure, straight from vertex to vertex."""

    kind: Literal["line"]
    object: Name
    vertices: list[Voxel] = Field(min_length=2, max_length=1000)


class BoxPrompt(Strict):
    """A box around the structure, both corners included; on one slice or in space."""

    kind: Literal["box"]
    object: Name
    low_ijk: Voxel
    high_ijk: Voxel


class MaskPromptModel(Strict):
    """A painted slice."""

    kind: Literal["mask"]
    object: Name
    slice: Index
    rle: RleModel


class AbsentPrompt(Strict):
    """A slice that does not show the structure."""

    kind: Literal["absent"]
    object: Name
    slice: Index


AnyPrompt = Annotated[
    PointPrompt | LinePrompt | BoxPrompt | MaskPromptModel | AbsentPrompt, Field(discriminator="kind")
]


class OpenSession(Strict):
    """Which image, and how it is cut into slices."""

    image: str = Field(min_length=1, max_length=500, description="Id of an image of the studies")
    axis: Literal["auto", "axial", "coronal", "sagittal"] = "auto"
    window: str = Field("auto", max_length=100, description="Grey values: auto, a preset such as lung, or LOW:HIGH")
    model: str | None = Field(None, max_length=100, description="One that this server runs; default: its SAM 2")
    start: Literal["nothing", "current"] = Field(
        "nothing",
        description="`current`: your draft of the case, its label or its pre-annotation, as painted slices",
    )
    client_id: ClientId = None


class SessionChange(Strict):
    """What of an open session may change beside its prompts."""

    multi_axis: bool = Field(description="Whether all slice axes weigh in on its masks, or its own alone")


class PromptList(Strict):
    """Prompts, in the order given."""

    prompts: list[AnyPrompt] = Field(json_schema_extra={"maxItems": MAX_PROMPTS})


class Slices(Strict):
    """Slices of one structure."""

    object: Name
    slices: list[Index] = Field(min_length=1, max_length=100_000)


class Readings(BaseModel):
    """What else the clicks or the box of a structure on a slice may mean; send one as a mask prompt to choose it."""

    readings: list[RleModel]


class DraftChange(Strict):
    """What else becomes of the case's draft."""

    dropped: list[Name] = Field([], max_length=255, description="Structures that are to leave it, if it holds them")


class Drafted(BaseModel):
    """The case's draft: what Submit would save, whichever client made it."""

    case: str
    objects: dict[str, "ObjectView"]
    shown: float | None = Field(description="Send it with the campaign's submit, which then refuses a newer draft")


class PromptView(BaseModel):
    """A prompt that counts."""

    id: str
    object: str
    kind: Literal["point", "line", "box", "mask", "absent"]
    ijk: tuple[int, int, int] | None = None
    positive: bool | None = None
    vertices: list[tuple[int, int, int]] | None = None
    low_ijk: tuple[int, int, int] | None = None
    high_ijk: tuple[int, int, int] | None = None
    slices: list[int] | None = Field(None, description="Painted slices, or the one that does not show the structure")


class SessionView(BaseModel):
    """A session as it stands."""

    id: str
    image: str
    model: str
    axis: str
    window: str
    multi_axis: bool = Field(description="Whether all slice axes weigh in on its masks")
    owner: str
    revision: int = Field(description="Grows with every change; send it as expected_revision to be sure of the state")
    prompts: list[PromptView]
    objects: list[str] = Field(description="In the order of their values in the result")
    accepted: dict[str, list[int]] = Field(description="Locked slices of each structure")
    can_undo: bool
    can_redo: bool
    propagating: bool
    created_at: datetime
    used_at: datetime


class SessionList(BaseModel):
    """Open sessions, oldest first."""

    sessions: list[SessionView]


class Stopping(BaseModel):
    """Whether a propagation was running; it ends after its present step and keeps what it has."""

    cancelled: bool


class SliceEvent(BaseModel):
    """One structure on one slice, as soon as it is known."""

    type: Literal["slice"] = "slice"
    slice: int
    object: str
    rle: RleModel
    confidence: float | None
    ms: float = Field(description="Since the propagation began")
    reused: bool = Field(description="Known from before")
    final: bool = Field(description="False while a second track is still to come")


class ProgressEvent(BaseModel):
    """How far it is."""

    type: Literal["progress"] = "progress"
    done: int = Field(description="Slices answered, over all structures")
    what: str


class StoppedView(BaseModel):
    """Where propagation ended early, and why: gone, or same as before."""

    object: str
    slice: int
    reason: str


class NextView(BaseModel):
    """The slice worth annotating next."""

    slice: int
    axis: str
    reason: str
    score: float | None = Field(description="The strategy's score; the largest is most worth annotating")
    strategy: str


class ObjectView(BaseModel):
    """A structure in the result."""

    value: int
    voxels: int
    ml: float


class SummaryEvent(BaseModel):
    """The last line of a propagation."""

    type: Literal["summary"] = "summary"
    revision: int
    cancelled: bool
    recomputed: int = Field(description="Answers that the model was asked for")
    reused: int = Field(description="Answers known from before")
    stopped: list[StoppedView]
    next_slice: NextView | None
    good_enough: str = Field(description="Why no slice is worth annotating; empty where one is")
    calibrated: bool = Field(description="The confidence was fitted to submitted labels")
    objects: dict[str, ObjectView]
    seconds: dict[str, float]
    warnings: list[str]


class ErrorEvent(BaseModel):
    """The last line after an error."""

    type: Literal["error"] = "error"
    status: int
    detail: str


Event = SliceEvent | ProgressEvent | SummaryEvent | ErrorEvent


def session_prompts(given: PromptList, grid: Grid) -> list[tuple[str, Item]]:
    """Return a request's prompts as a session takes them, (object, item).

    Args:
        grid: the session's.

    Raises:
        TooLarge: there are more than MAX_PROMPTS, or more than MAX_MASKS painted slices.
        PromptError: a painted slice does not fit.
    """
    if len(given.prompts) > MAX_PROMPTS:
        raise TooLarge(
            f"{len(given.prompts)} prompts were sent; at most {MAX_PROMPTS} are taken. Paint a slice instead."
        )
    painted = sum(isinstance(prompt, MaskPromptModel) for prompt in given.prompts)
    if painted > MAX_MASKS:
        raise TooLarge(f"{painted} painted slices were sent; at most {MAX_MASKS} at a time. Upload them as a file.")
    return [(prompt.object, _item(prompt, grid)) for prompt in given.prompts]


def _item(prompt: AnyPrompt, grid: Grid) -> Item:
    match prompt:
        case PointPrompt():
            return Point(prompt.ijk, positive=prompt.positive)
        case LinePrompt():
            return Line(tuple(prompt.vertices))
        case BoxPrompt():
            return Box(prompt.low_ijk, prompt.high_ijk)
        case AbsentPrompt():
            return Absent(prompt.slice)
        case MaskPromptModel():
            return _painted(prompt, grid)


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
        multi_axis=state.multi_axis,
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


def _prompt_view(prompt: Add) -> PromptView:
    details: dict[str, Any]
    match prompt.item:
        case Point(ijk=ijk, positive=positive):
            details = {"kind": "point", "ijk": ijk, "positive": positive}
        case Line(vertices=vertices):
            details = {"kind": "line", "vertices": vertices}
        case Box(low_ijk=low, high_ijk=high):
            details = {"kind": "box", "low_ijk": low, "high_ijk": high}
        case Absent(slice=number):
            details = {"kind": "absent", "slices": [number]}
        case Painted(slices=slices):
            details = {"kind": "mask", "slices": [number for number, _ in slices]}
    return PromptView(id=prompt.id, object=prompt.object, **details)


def rle_model(mask: Mask) -> RleModel:
    """Return a mask (H, W) as run lengths."""
    rle = encode_rle(mask)
    return RleModel(size=(rle["size"][0], rle["size"][1]), counts=rle["counts"])


def slice_event(update: SliceUpdate) -> SliceEvent:
    """Describe one structure on one slice."""
    return SliceEvent(
        slice=update.slice,
        object=update.object,
        rle=rle_model(update.mask),
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
        objects={
            n: ObjectView(**found) for n, found in objects_of(result.mask, result.labels, result.geometry).items()
        },
        seconds={name: round(value, 4) for name, value in result.seconds.items()},
        warnings=list(result.warnings),
    )


def _finite(value: float) -> float | None:
    """JSON has no NaN."""
    return round(float(value), 4) if math.isfinite(value) else None
