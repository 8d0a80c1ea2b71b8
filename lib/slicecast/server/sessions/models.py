"""What goes over the wire for sessions: requests are checked here, answers described for OpenAPI.

Voxel indices are (i, j, k) of the stored volume, from 0. Slices are counted as stored, along the session's axis.
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from slicecast.active.slices import Question

SliceStrategyName = Literal["mid", "strided", "worst", "disagree", "value", "extent"]
"""The names of `active/slices`; empty is the server's own."""

MAX_PROMPTS = 10_000
MAX_MASKS = 256
"""Painted slices of one request."""

Index = Annotated[int, Field(ge=0, lt=1 << 31)]
Voxel = Annotated[tuple[Index, Index, Index], Field(description="Voxel index (i, j, k), i fastest, from 0")]
Name = Annotated[str, Field(min_length=1, max_length=200, description="Name of the structure")]
ClientId = Annotated[
    str | None, Field(max_length=200, description="Your name, where nobody logs in; decides whose session it is")
]


class Strict(BaseModel):
    """A request; a key that nobody knows is an error."""

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


AnyPrompt = Annotated[PointPrompt | BoxPrompt | MaskPromptModel | AbsentPrompt, Field(discriminator="kind")]


class OpenSession(Strict):
    """Which image, and how it is cut into slices."""

    image: str = Field(min_length=1, max_length=500, description="Id of an image of the studies")
    axis: Literal["auto", "axial", "coronal", "sagittal"] = "auto"
    window: str = Field("auto", max_length=100, description="Grey values: auto, a preset such as lung, or LOW:HIGH")
    model: str | None = Field(None, max_length=100, description="Must be the one that this server runs")
    client_id: ClientId = None


class PromptList(Strict):
    """Prompts, in the order given."""

    prompts: list[AnyPrompt] = Field(max_length=MAX_PROMPTS)


class Slices(Strict):
    """Slices of one structure."""

    object: Name
    slices: list[Index] = Field(min_length=1, max_length=100_000)


class PromptView(BaseModel):
    """A prompt that counts."""

    id: str
    object: str
    kind: Literal["point", "box", "mask", "absent"]
    ijk: tuple[int, int, int] | None = None
    positive: bool | None = None
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
    final: bool = Field(description="False where a second lane is still to come")


class ProgressEvent(BaseModel):
    """How far it is."""

    type: Literal["progress"] = "progress"
    done: int = Field(description="Slices answered, over all structures")
    what: str


class StoppedView(BaseModel):
    """Where a walk ended early, and why: gone, or same as before."""

    object: str
    slice: int
    reason: str


class NextView(BaseModel):
    """The slice worth annotating next."""

    slice: int
    axis: str
    reason: str
    score: float | None = Field(description="The strategy's own measure; larger is more worth a look")
    strategy: str
    question: Question = Field(description="present: only say whether the structure is there; absent is a prompt")


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
    good_enough: str = Field(description="Why no slice is worth a look; empty where one is")
    calibrated: bool = Field(description="The confidence was fitted to submitted labels")
    objects: dict[str, ObjectView]
    seconds: dict[str, float]
    warnings: list[str]


class ErrorEvent(BaseModel):
    """The last line where something went wrong on the way."""

    type: Literal["error"] = "error"
    status: int
    detail: str


Event = SliceEvent | ProgressEvent | SummaryEvent | ErrorEvent
