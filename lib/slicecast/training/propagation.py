"""Propagate tracks through clips: prompt the first slice, track the others, with the steps that inference uses.

All tracks of a batch step together. What each step predicted is kept, so that losses and metrics can look at it.
Prompts are given as users give them; coordinates are (x, y) in input pixels, integers at pixel centres.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from slicecast.models import sam2_forward as steps
from slicecast.models.sam2_forward import (
    BOX_BOTTOM_RIGHT,
    BOX_TOP_LEFT,
    NEGATIVE,
    POSITIVE,
    BankBatch,
    Features,
    Memory,
    Step,
)

NUM_SLICES = 16  # Slices that a clip claims to come from; SAM 2 scales pointer distances by it only below 16
TAUGHT_LOGIT = 10.0  # Logit of a pixel that the truth is sure of, as SAM 2 writes it for a mask prompt

MASK, BOX, CLICK = "mask", "box", "click"
KINDS = (MASK, BOX, CLICK)  # Prompts that a track can start with


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Tracks that start with the same kind of prompt."""

    kind: str  # one of KINDS
    frames: Tensor  # (L, T) int64, which encoded frame each track meets at each time
    masks: Tensor  # (L, T, S, S) bool, the truth; present at time 0
    known: Tensor | None = None  # (L, T) bool, the masks that are to be learnt; None: all
    corrections: int = 0  # corrective clicks after the first prompt; not for masks
    at_once: bool = False  # the clicks come together, not each over the answer to the one before
    noisy: float = 0.0  # share of prompt masks with a wobbly outline


@dataclass(frozen=True, slots=True)
class Plan:
    """What happens to the tracks of a propagation after their first slice."""

    far_anchor: bool = False  # the last slice's mask is given too (empty where the object has ended)
    correct_last: bool = False  # the last slice gets a corrective click, with all its memory
    gap: int = 0  # slices that tracks claim to have tracked since their prompt, so that a great distance is no surprise
    # share of answers that are replaced by the truth before they go on to the next slice. At first a track soon meets
    # nothing but its own mistakes, from which there is little to learn.
    teacher: float = 0.0
    # share of carried answers that are shifted and scaled a little before the next slice gets them. What lies two
    # pixels off is seen to be wrong only by looking at the slice; without this, tracks learn to copy.
    moved: float = 0.0
    # nothing is carried, so that only memory says what the object is. A mask that is always there is learnt first, and
    # then memory never.
    withheld: bool = False
    drawn: bool = True  # clicks and boxes are drawn into the dense prompt beside their tokens


STRAIGHT = Plan()  # As at inference, from one prompt


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What was said about one slice of L tracks, and the truth."""

    step: Step  # the answer that goes on, masks wiped where the object was said to be absent
    raw: Tensor  # (L, M, m, m) logits of the candidates, never wiped
    score: Tensor  # (L, 1) the network's own object score
    truth: Tensor  # (L, S, S) bool
    time: int  # track time
    kind: str = ""  # prompt of the tracks; empty where several kinds were tracked together
    given: bool = False  # the mask was the prompt, so only the score says something
    known: Tensor | None = None  # (L,) bool, the rows whose truth is to be learnt; None: all


@dataclass(slots=True, eq=False)
class DecoderTap:
    """Keep the decoder's raw answers, and decide by truth where masks are wiped.

    SAM 2 replaces every mask by -1024 where its object score is not positive. While training, that would cut the
    gradient wherever a half-trained score is wrong. So tracks whose object is present are never wiped; absent ones
    are left to the network, which then meets its own overshoot.
    """

    present: Tensor | None = None
    raw: Tensor = field(default_factory=lambda: torch.empty(0))
    score: Tensor = field(default_factory=lambda: torch.empty(0))

    def hook(self, _module: nn.Module, _inputs: tuple, output: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Stand behind the mask decoder."""
        masks, ious, tokens, score = output
        self.raw, self.score = masks, score
        if self.present is not None:
            score = torch.where(self.present[:, None], score.abs() + 1e-3, score)
        return masks, ious, tokens, score


Network = Any  # A `sam2.modeling.sam2_base.SAM2Base`; only `models` may import that name


@contextmanager
def tapped(model: Network) -> Iterator[DecoderTap]:
    """Attach a :class:`DecoderTap` to the model's mask decoder for a while."""
    tap = DecoderTap()
    handle = model.sam_mask_decoder.register_forward_hook(tap.hook)
    try:
        yield tap
    finally:
        handle.remove()


def propagate(
    model: Network,
    images: Tensor,
    groups: Sequence[Group],
    *,
    rng: np.random.Generator,
    by_truth: bool,
    plan: Plan = STRAIGHT,
) -> list[Prediction]:
    """Propagate all tracks of all groups and return what was predicted, prompts first.

    Args:
        images: (N, S, S) uint8, the batch's frames.
        rng: places the prompts.
        by_truth: training: see :class:`DecoderTap`. Otherwise the network alone decides.
        plan: what happens after the first slice.
    """
    features = steps.encode(model, images.float() / 255)
    with tapped(model) as tap:
        run = _Propagation(model, features, tap, rng, by_truth, plan.drawn)
        return run.propagate(groups, plan)


@dataclass(frozen=True, slots=True, eq=False)
class _Propagation:
    model: Network
    features: Features
    tap: DecoderTap
    rng: np.random.Generator
    by_truth: bool
    drawn: bool

    def propagate(self, groups: Sequence[Group], plan: Plan) -> list[Prediction]:
        frames = torch.cat([g.frames for g in groups])
        masks = torch.cat([g.masks for g in groups])
        known = torch.cat([torch.ones_like(g.frames, dtype=torch.bool) if g.known is None else g.known for g in groups])
        prompted = [self._prompt(group) for group in groups]
        out = [p for predictions in prompted for p in predictions]
        step = self._taught(_joined([predictions[-1].step for predictions in prompted]), masks[:, 0], plan.teacher)
        anchors = {0: self._remember(frames[:, 0], step)}
        last = frames.shape[1] - 1
        if plan.far_anchor:
            anchors[last + plan.gap] = self._given(frames[:, last], masks[:, last])
        recent: dict[int, Memory] = {}
        for number in range(1, last + (not plan.far_anchor)):
            bank, time = BankBatch(anchors, recent), number + plan.gap
            previous_mask = self._previous_mask(step, plan)
            prediction = self._track(frames[:, number], masks[:, number], bank, time, previous_mask)
            step = self._taught(prediction.step, masks[:, number], plan.teacher)
            recent = {**recent, time: self._remember(frames[:, number], step)}
            out.append(replace(prediction, known=known[:, number]))
        if plan.correct_last and out[-1].time > 0:
            corrected = self._correct(frames[:, number], out[-1], bank)
            out.append(replace(corrected, known=known[:, number]))
        return out

    def _previous_mask(self, step: Step, plan: Plan) -> Tensor | None:
        """Return the last answer as the next slice gets it, (L, 1, m, m) logits."""
        return None if plan.withheld else moved(self.rng, step.logits.detach(), share=plan.moved)

    def _correct(self, frames: Tensor, wrong: Prediction, bank: BankBatch) -> Prediction:
        previous = wrong.step.logits.detach()
        points, labels = corrective_clicks(full_size(previous[:, 0], wrong.truth.shape[-1]) > 0, wrong.truth)
        clicks = (points, labels, previous)
        return self._click(select(self.features, frames), clicks, wrong.truth, "", bank=bank, time=wrong.time)

    def _prompt(self, group: Group) -> list[Prediction]:
        truth, features = group.masks[:, 0], select(self.features, group.frames[:, 0])
        self._gate_by(truth)
        if group.kind == MASK:
            given = noisy_masks(self.rng, truth, share=group.noisy)
            step = steps.prompt_with_mask(self.model, features, given[:, None].float())
            return [Prediction(step, self.tap.raw, self.tap.score, truth, 0, MASK, given=True)]
        draw = boxes if group.kind == BOX else first_clicks
        points, labels = draw(self.rng, truth)
        out = [self._click(features, (points, labels, None), truth, group.kind)]
        for _ in range(group.corrections):
            predicted = full_size(out[-1].step.logits[:, 0].detach(), truth.shape[-1]) > 0
            point, label = corrective_clicks(predicted, truth)
            points, labels = torch.cat([points, point], dim=1), torch.cat([labels, label], dim=1)
            previous = None if group.at_once else out[-1].step.logits.detach()
            out.append(self._click(features, (points, labels, previous), truth, group.kind))
        return out

    def _click(
        self,
        features: Features,
        clicks: tuple[Tensor, Tensor, Tensor | None],
        truth: Tensor,
        kind: str,
        *,
        bank: BankBatch | None = None,
        time: int = 0,
    ) -> Prediction:
        """Answer points with labels, over the previous answer if there is one."""
        points, labels, previous = clicks
        size = self.model.image_size
        dense = None if previous is None else previous.clamp(-steps.PREVIOUS_LIMIT, steps.PREVIOUS_LIMIT)
        if self.drawn:
            dense = steps.draw_prompts(points, labels, mask_size=size // 4, image_size=size, previous=previous)
        step = steps.prompt_with_points(
            self.model, features, points, labels, dense=dense, bank=bank, time=time, num_slices=NUM_SLICES
        )
        return Prediction(step, self.tap.raw, self.tap.score, truth, time, kind)

    def _track(
        self, frames: Tensor, truth: Tensor, bank: BankBatch, time: int, previous_mask: Tensor | None
    ) -> Prediction:
        self._gate_by(truth)
        features = select(self.features, frames)
        step = steps.track(self.model, features, bank, time=time, num_slices=NUM_SLICES, previous_mask=previous_mask)
        return Prediction(step, self.tap.raw, self.tap.score, truth, time)

    def _taught(self, step: Step, truth: Tensor, share: float) -> Step:
        """Return the step with the true masks in a share of its tracks."""
        tracks = torch.from_numpy(self.rng.random(len(truth)) < share).to(truth.device)
        present = truth.flatten(1).any(dim=1)
        logits = 2 * TAUGHT_LOGIT * F.avg_pool2d(truth[:, None].float(), 4) - TAUGHT_LOGIT
        score = torch.where(present, TAUGHT_LOGIT, -TAUGHT_LOGIT)[:, None]
        return replace(
            step,
            logits=torch.where(tracks[:, None, None, None], logits, step.logits),
            object_score=torch.where(tracks[:, None], score, step.object_score),
        )

    def _given(self, frames: Tensor, masks: Tensor) -> Memory:
        self._gate_by(masks)
        step = steps.prompt_with_mask(self.model, select(self.features, frames), masks[:, None].float())
        return self._remember(frames, step)

    def _remember(self, frames: Tensor, step: Step) -> Memory:
        return steps.remember(self.model, select(self.features, frames), step, prompted=False)

    def _gate_by(self, truth: Tensor) -> None:
        self.tap.present = truth.flatten(1).any(dim=1) if self.by_truth else None


def select(features: Features, rows: Tensor) -> Features:
    """Return the encoded frames of the given rows."""
    return Features(tuple(m.index_select(0, rows) for m in features.maps))


def full_size(logits: Tensor, size: int) -> Tensor:
    """Resample (B, m, m) logits to (B, size, size)."""
    return F.interpolate(logits[:, None], size=(size, size), mode="bilinear", align_corners=False)[:, 0]


def _joined(parts: Sequence[Step]) -> Step:
    """Return one step for the tracks of several groups; of candidates only the chosen one is kept."""
    chosen = [replace(s, candidates=s.logits, candidate_ious=s.predicted_iou[:, None]) for s in parts]
    names = ("candidates", "candidate_ious", "logits", "predicted_iou", "pointer", "object_score")
    return Step(**{name: torch.cat([getattr(s, name) for s in chosen]) for name in names})


ERROR_PX = 64  # Errors are searched on a raster of at most this side; clicks need no more
CENTRE_SHARE = 0.5  # Share of first clicks at the object's deepest point; the others fall anywhere, mostly deep inside

MOVED_SHIFT, MOVED_SCALE = 0.08, 0.1
"""Standard deviation of a carried answer's shift, in halves of the frame, and of the logarithm of its scale."""


def first_clicks(rng: np.random.Generator, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return one positive click a row: points (B, 1, 2) float32 and labels (B, 1) int32.

    Args:
        masks: (B, S, S) bool, none empty.
    """
    points = _points([_inside(rng, mask) for mask in masks.numpy(force=True)], masks)
    return points, torch.full((len(masks), 1), POSITIVE, dtype=torch.int32, device=masks.device)


def corrective_clicks(predicted: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return one click a row at the pole of the largest error: positive where something is missing.

    Args:
        predicted: (B, S, S) bool.
        masks: (B, S, S) bool.
    """
    step = max(1, masks.shape[-1] // ERROR_PX)
    wrong, truth = (predicted != masks).numpy(force=True), masks.numpy(force=True)
    poles = [_pole(w[::step, ::step]) * step for w in wrong]
    labels = [POSITIVE if t[int(y), int(x)] else NEGATIVE for t, (x, y) in zip(truth, poles, strict=True)]
    return _points(poles, masks), torch.tensor(labels, dtype=torch.int32, device=masks.device)[:, None]


def boxes(rng: np.random.Generator, masks: Tensor, *, jitter: float = 0.05) -> tuple[Tensor, Tensor]:
    """Return a box a row as two points (B, 2, 2) with their labels; corners are off by `jitter` of the side."""
    corners = []
    for mask in masks.numpy(force=True):
        rows, columns = np.nonzero(mask)
        low = np.array([columns.min(), rows.min()], dtype=np.float64)
        high = np.array([columns.max(), rows.max()], dtype=np.float64)
        slack = jitter * (high - low + 1)
        corners.append([low + rng.normal(0, slack), high + rng.normal(0, slack)])
    points: NDArray[np.float64] = np.clip(np.array(corners), 0, masks.shape[-1] - 1)
    labels = torch.tensor([[BOX_TOP_LEFT, BOX_BOTTOM_RIGHT]], dtype=torch.int32, device=masks.device)
    return _points(points, masks), labels.expand(len(masks), 2)


def moved(rng: np.random.Generator, logits: Tensor, *, share: float) -> Tensor:
    """Return logits (B, 1, m, m), a share of them shifted and scaled by a few percent of the frame."""
    chosen = rng.random(len(logits)) < share
    if not chosen.any():
        return logits
    shift, scale = rng.normal(0, MOVED_SHIFT, (len(logits), 2)), np.exp(rng.normal(0, MOVED_SCALE, (len(logits), 2)))
    theta = np.zeros((len(logits), 2, 3), dtype=np.float32)
    theta[:, [0, 1], [0, 1]] = np.where(chosen[:, None], scale, 1)
    theta[:, :, 2] = np.where(chosen[:, None], shift, 0)
    grid = F.affine_grid(torch.from_numpy(theta).to(logits), list(logits.shape), align_corners=False)
    out = F.grid_sample(logits, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return torch.where(torch.from_numpy(chosen).to(logits.device)[:, None, None, None], out, logits)


def noisy_masks(rng: np.random.Generator, masks: Tensor, *, share: float) -> Tensor:
    """Return masks (B, S, S), a share of them with a wobbly outline as drawn in a hurry; none becomes empty."""
    out = masks.numpy(force=True).copy()
    for row in np.flatnonzero(rng.random(len(out)) < share):
        wobbly = _wobbly(rng, out[row])
        if wobbly.any():
            out[row] = wobbly
    return torch.from_numpy(out).to(masks.device)


def _wobbly(rng: np.random.Generator, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    signed = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
    scale = 0.25 * np.sqrt(mask.sum())
    wave = ndimage.zoom(rng.standard_normal((9, 9)), mask.shape[0] / 9, order=1)
    return signed > 0.2 * scale * wave[: mask.shape[0], : mask.shape[1]] + rng.normal(0, 0.08 * scale)


def _inside(rng: np.random.Generator, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    step = max(1, mask.shape[-1] // ERROR_PX)
    small = mask[::step, ::step] if mask[::step, ::step].any() else mask
    step = mask.shape[-1] // small.shape[-1]
    if rng.random() < CENTRE_SHARE:
        return _pole(small) * step
    depth = _depth(small).ravel() ** 1.5
    row, column = divmod(int(rng.choice(len(depth), p=depth / depth.sum())), small.shape[1])
    return np.array([column, row], dtype=np.float64) * step


def _pole(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return (x, y) of the deepest point; of an empty mask the first pixel."""
    row, column = divmod(int(_depth(mask).argmax()), mask.shape[1])
    return np.array([column, row], dtype=np.float64)


def _depth(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the distance to the outside; the frame's edge counts as outside."""
    return ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]


def _points(points: object, like: Tensor) -> Tensor:
    array = torch.as_tensor(np.asarray(points), dtype=torch.float32, device=like.device)
    return array.reshape(len(like), -1, 2)
