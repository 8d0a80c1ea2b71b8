"""What the engine asks of a model, and nothing else.

A :class:`SlicePredictor` works slice by slice with memory: SAM 2 and its relatives.

Coordinates here are in *model pixels*: the square input of S x S, integer = a pixel's centre.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Embedding = Any  # An encoded slice; opaque, but with an ``nbytes`` attribute so that a cache can keep its budget

SliceMemory = Any
"""What a slice leaves for later slices of its track; opaque, but with an ``nbytes`` attribute like an embedding."""


@dataclass(frozen=True, slots=True, eq=False)
class ModelPrompt:
    """One object's prompts on one slice, in model pixels."""

    points_xy: NDArray[np.float32]  # (P, 2) float32
    labels: NDArray[np.int32]  # (P,) int32, 1 positive, 0 negative
    box_xyxy: NDArray[np.float32] | None = None  # (4,) float32 or None
    # (S, S) bool or None; a mask is taken as the answer, the rest is then ignored
    mask: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Bank:
    """Memory of one track, by track time: its own anchor at 0, slices tracked since, the far anchor ahead."""

    anchors: tuple[tuple[int, SliceMemory], ...]  # (time, memory) of conditioning slices
    recent: tuple[tuple[int, SliceMemory], ...] = ()  # (time, memory) of tracked slices, oldest first
    time: int = 1  # track time of the slice that is next

    def push(self, memory: SliceMemory, *, keep: int) -> "Bank":
        """Return the bank after one more tracked slice, holding the last ``keep`` of them."""
        recent = (*self.recent, (self.time, memory))[-keep:]
        return Bank(self.anchors, recent, self.time + 1)

    @property
    def last(self) -> SliceMemory:
        """Return the memory of the slice tracked last, or of the own anchor at the start."""
        return self.recent[-1][1] if self.recent else self.anchors[0][1]


@dataclass(frozen=True, slots=True, eq=False)
class PromptJob:
    """Segment one slice from prompts."""

    embedding: Embedding
    prompt: ModelPrompt
    bank: Bank | None = None  # memory of the track that the slice corrects; None for a slice that stands alone
    # (m, m) float32 logits of an earlier answer on this slice, to be corrected
    previous: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TrackJob:
    """Segment one slice from memory alone."""

    embedding: Embedding
    bank: Bank
    # (S, S) float32 logits of how much each pixel looks like the object; None for a predictor that does not ask for it
    prior: NDArray[np.float32] | None = None
    bias: float = 0.0  # logit added to the mask where the object is present


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """A model's answer for one object on one slice."""

    logits: NDArray[np.float32]  # (m, m) float32 mask logits over the model's input square
    predicted_iou: float  # the model's own estimate in [0, 1]; 1 for a mask prompt
    object_score: float  # logit that the object is on this slice
    memory: SliceMemory  # for later slices


class SlicePredictor(Protocol):
    """A promptable model with memory, for batches of slices.

    Attributes:
        image_size: S, pixels of the square input.
        memory_length: tracked slices that a bank has to keep.
        fingerprint: changes whenever answers may change: weights, switches, code version.
        zoom: whether working on a crop around the object measurably wins with this model.
        appearance_prior: whether the model listens to the appearance prior when it tracks.
    """

    image_size: int
    memory_length: int
    fingerprint: str
    zoom: bool
    appearance_prior: bool

    def encode(self, frames: NDArray[np.float32]) -> list[Embedding]:
        """Encode slices (N, S, S) float32 in [0, 1]."""
        ...

    def prompt(self, jobs: Sequence[PromptJob], *, num_slices: int) -> list[Observation]:
        """Segment prompted slices; the answers are in the order of the jobs."""
        ...

    def track(self, jobs: Sequence[TrackJob], *, num_slices: int) -> list[Observation]:
        """Segment the next slice of each track; the answers are in the order of the jobs."""
        ...


class DevicePredictor(SlicePredictor, Protocol):
    """A predictor as a service keeps it, shared by many requests: what it asks of a model beside segmenting."""

    @property
    def on_cpu(self) -> bool:
        """Whether the model's memory is the computer's."""
        ...

    def pool(self, embedding: Embedding) -> NDArray[np.float32]:
        """Return what a whole slice looks like, (D,)."""
        ...

    def release(self) -> None:
        """Free device memory that is cached but unused."""
        ...
