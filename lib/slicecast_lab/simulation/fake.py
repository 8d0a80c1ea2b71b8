"""A predictor without weights: tracks a patch of similar grey from slice to slice. For tests and examples.

It keeps every promise of the port, so the engine's laws can be proved with it: an answer depends on its own
job alone, whatever else is in the batch; the bank and the answer to be corrected matter; nothing is random.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from slicecast.engine.ports import Bank, ModelPrompt, Observation, PromptJob, TrackJob

STRIDE = 4  # Input pixels per mask cell, as in SAM 2
SIMILAR = 0.2  # Largest difference of grey, in [0, 1], within one object

SURE_LOGIT = 10.0

STEP_CELLS = 2  # How far an outline may move from one slice to the next
CLICK_CELLS = 2.0  # Radius of what a click alone settles
REMAINS = 0.2  # Share of the previous area that has to be found again for the object to be there

Mask = NDArray[np.bool_]
Grey = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class _Picture:
    """An encoded slice: its mean grey in each mask cell (m, m)."""

    grey: Grey

    @property
    def nbytes(self) -> int:
        return self.grey.nbytes


@dataclass(frozen=True, slots=True, eq=False)
class _Trace:
    """What a slice leaves: the object's mean grey, and where it was seen last."""

    grey: float
    mask: Mask

    @property
    def nbytes(self) -> int:
        return self.mask.nbytes


class FakePredictor:
    """A :class:`slicecast.engine.ports.SlicePredictor` that follows similar grey values.

    Args:
        image_size: pixels of the square input, a multiple of 4.
        zoom: what the engine's ``zoom="auto"`` becomes.
        appearance_prior: what its ``prior="auto"`` becomes; this predictor itself does not listen.
    """

    def __init__(self, *, image_size: int = 128, zoom: bool = False, appearance_prior: bool = False) -> None:
        self.image_size = image_size
        self.on_cpu = True
        self.memory_length = 2
        self.fingerprint = f"fake:{image_size}"
        self.zoom = zoom
        self.appearance_prior = appearance_prior

    def encode(self, frames: NDArray[np.float32]) -> list[_Picture]:
        """Encode slices (N, S, S) float32 in [0, 1]."""
        return [_Picture(_cells(frame)) for frame in frames]

    def pool(self, embedding: _Picture) -> NDArray[np.float32]:
        """Return what a whole slice looks like, (2,): mean and deviation of its grey values."""
        return np.array([embedding.grey.mean(), embedding.grey.std()], dtype=np.float32)

    def release(self) -> None:
        """Free nothing: it holds nothing."""

    def prompt(self, jobs: Sequence[PromptJob], *, num_slices: int) -> list[Observation]:
        """Segment prompted slices."""
        return [_answer_prompt(job) for job in jobs]

    def track(self, jobs: Sequence[TrackJob], *, num_slices: int) -> list[Observation]:
        """Segment the next slice of each track."""
        return [_answer_track(job) for job in jobs]


def _answer_prompt(job: PromptJob) -> Observation:
    prompt, grey = job.prompt, job.embedding.grey
    if prompt.mask is not None:
        return _settled(grey, _cells(prompt.mask.astype(np.float32)) >= 0.5)
    wanted, unwanted = (_disks(prompt, grey.shape, label=label) for label in (1, 0))
    start = wanted if prompt.box_xyxy is None else _middle_of_box(prompt.box_xyxy, grey.shape)
    colours = [float(grey[start].mean())] if start.any() else []
    if job.bank is not None:
        colours.append(_remembered_grey(job.bank))
    if not colours:
        return _observe(grey, np.zeros(grey.shape, dtype=bool), 0.0, score=-SURE_LOGIT)
    colour = float(np.mean(colours))
    mask = _grown(_similar(grey, colour) & _within_box(prompt, grey.shape), start) | wanted
    if job.previous is not None:
        mask |= job.previous > 0
    return _observe(grey, mask & ~unwanted, colour, score=SURE_LOGIT)


def _answer_track(job: TrackJob) -> Observation:
    grey, last = job.embedding.grey, job.bank.last.mask
    colour = _remembered_grey(job.bank)
    near = ndimage.binary_dilation(last, iterations=STEP_CELLS)
    mask = _similar(grey, colour) & near
    remains = np.count_nonzero(mask) / max(np.count_nonzero(last), 1)
    score = float(np.clip(remains - REMAINS, -1.0, 1.0)) * SURE_LOGIT
    return _observe(grey, mask, colour, score=score, last=last)


def _observe(grey: Grey, mask: Mask, colour: float, *, score: float, last: Mask | None = None) -> Observation:
    """Answer with a mask whose logits fall with the distance from the object's grey."""
    present = score > 0 and bool(mask.any())
    margin = np.clip(1.0 - np.abs(grey - colour) / SIMILAR, 0.1, 1.0)
    logits = np.where(mask & present, margin, -1.0).astype(np.float32) * np.float32(SURE_LOGIT)
    seen = float(margin[mask].mean()) if present else 0.0
    where = mask if present or last is None else last
    return Observation(logits, predicted_iou=seen, object_score=score, memory=_Trace(colour, where))


def _settled(grey: Grey, mask: Mask) -> Observation:
    """Answer with a mask that was given."""
    colour = float(grey[mask].mean()) if mask.any() else 0.0
    logits = np.where(mask, SURE_LOGIT, -SURE_LOGIT).astype(np.float32)
    score = SURE_LOGIT if mask.any() else -SURE_LOGIT
    return Observation(logits, predicted_iou=1.0, object_score=score, memory=_Trace(colour, mask))


def _remembered_grey(bank: Bank) -> float:
    return float(np.mean([trace.grey for _, trace in (*bank.anchors, *bank.recent)]))


def _similar(grey: Grey, colour: float) -> Mask:
    return np.abs(grey - np.float32(colour)) < SIMILAR


def _grown(mask: Mask, start: Mask) -> Mask:
    """Return the connected parts of a mask that hold any of ``start``."""
    labels, _ = ndimage.label(mask)
    return mask & np.isin(labels, labels[start & mask])


def _disks(prompt: ModelPrompt, shape: tuple[int, ...], *, label: int) -> Mask:
    """Draw the clicks of one kind."""
    y, x = np.indices(shape, dtype=np.float32)
    drawn = np.zeros(shape, dtype=bool)
    for click_x, click_y in _to_cells(prompt.points_xy[prompt.labels == label]):
        drawn |= (x - click_x) ** 2 + (y - click_y) ** 2 <= CLICK_CELLS**2
    return drawn


def _within_box(prompt: ModelPrompt, shape: tuple[int, ...]) -> Mask:
    """Draw the box; everything where there is none."""
    if prompt.box_xyxy is None:
        return np.ones(shape, dtype=bool)
    return _rectangle(_to_cells(prompt.box_xyxy.reshape(2, 2)), shape)


def _middle_of_box(box_xyxy: NDArray[np.float32], shape: tuple[int, ...]) -> Mask:
    """Draw the middle of the box, which surely shows the object."""
    corners = _to_cells(box_xyxy.reshape(2, 2))
    return _rectangle((corners + corners.mean(axis=0)) / 2, shape)


def _rectangle(corners_xy: NDArray[np.floating], shape: tuple[int, ...]) -> Mask:
    """Draw all cells that lie, by their centre or by half a cell, between two corners."""
    y, x = np.indices(shape, dtype=np.float32)
    (left, top), (right, bottom) = corners_xy[0] - 0.5, corners_xy[1] + 0.5
    return (x >= left) & (x <= right) & (y >= top) & (y <= bottom)


def _to_cells(points_xy: NDArray[np.floating]) -> NDArray[np.floating]:
    return (points_xy + 0.5) / STRIDE - 0.5


def _cells(image: NDArray[np.float32]) -> Grey:
    """Return the mean of each STRIDE x STRIDE block of an image (S, S)."""
    side = image.shape[0] // STRIDE
    return image.reshape(side, STRIDE, side, STRIDE).mean(axis=(1, 3), dtype=np.float32)
