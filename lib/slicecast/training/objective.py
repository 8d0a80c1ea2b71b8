"""From a batch of clips to a loss: which tracks get which prompt, how far they are propagated, and what is minimised.

Minimised are masks (best of three), their predicted IoU, and whether the object is there. Masks are compared at half
the input's resolution: fine enough to place an outline within a quarter cell of the network's own mask, at a quarter
of the cost.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slicecast.training.propagation import BOX, CLICK, MASK, Group, Plan, Prediction, propagate


@dataclass(frozen=True, slots=True)
class LossWeights:
    """Relative weights of the terms."""

    balance: float = 1.0  # 1 weighs object and rest alike, as needed at first; 0 weighs every pixel alike
    iou: float = 0.5  # of the L1 error of predicted IoU
    score: float = 0.5  # of the object score's cross-entropy
    absent: float = 0.5  # of the masks where the object has ended; they should be empty


@dataclass(frozen=True, slots=True, eq=False)
class Loss:
    """The terms, unweighted, each averaged over tracks and slices, and their weighted sum."""

    total: Tensor
    mask: Tensor
    iou: Tensor
    score: Tensor
    absent: Tensor

    def terms(self) -> dict[str, Tensor]:
        """Return all of them by name."""
        return {name: getattr(self, name) for name in self.__slots__}


def propagation_loss(predictions: Sequence[Prediction], weights: LossWeights) -> Loss:
    """Average the loss of all slices of a walk."""
    terms = [_prediction_loss(p, weights) for p in predictions]
    mean = {name: _mean([t[name] for t in terms if name in t]) for name in ("mask", "iou", "score", "absent")}
    total = mean["mask"] + weights.iou * mean["iou"] + weights.score * mean["score"] + weights.absent * mean["absent"]
    return Loss(total=total, **mean)


def _mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(tuple(values)).mean() if values else torch.zeros(())


def _prediction_loss(p: Prediction, weights: LossWeights) -> dict[str, Tensor]:
    shown = p.truth.flatten(1).any(dim=1)
    known = torch.ones_like(shown) if p.known is None else p.known
    if not known.any():
        return {}
    present, absent = shown & known, ~shown & known
    terms = {"score": F.binary_cross_entropy_with_logits(p.score[known, 0].float(), shown[known].float())}
    if p.given:
        return terms
    if present.any():
        logits, truth = at_half_size(p.raw[present], p.truth[present])
        terms["mask"] = mask_loss(logits, truth, balance=weights.balance).amin(dim=1).mean()
        terms["iou"] = (p.step.candidate_ious[present].float() - iou(logits > 0, truth > 0.5)).abs().mean()
    if absent.any():
        terms["absent"] = F.softplus(p.raw[absent].float()).mean()
    return terms


def at_half_size(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits (B, M, m, m) and truth (B, S, S) both at S/2: float32, and float32 shares in [0, 1]."""
    half = truth.shape[-1] // 2
    up = F.interpolate(logits.float(), size=(half, half), mode="bilinear", align_corners=False)
    return up, F.avg_pool2d(truth[:, None].float(), 2)


def mask_loss(logits: Tensor, truth: Tensor, *, balance: float) -> Tensor:
    """Return cross-entropy plus Dice loss (B, M) of logits (B, M, H, W) against truth (B, 1, H, W)."""
    target = truth.expand_as(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none").flatten(2)
    target, probability = target.flatten(2), logits.sigmoid().flatten(2)
    area, rest = target.sum(-1).clamp(min=1), (1 - target).sum(-1).clamp(min=1)
    balanced = 0.5 * ((entropy * target).sum(-1) / area + (entropy * (1 - target)).sum(-1) / rest)
    dice = 1 - (2 * (probability * target).sum(-1) + 1) / (probability.sum(-1) + target.sum(-1) + 1)
    return balance * balanced + (1 - balance) * PIXEL_GAIN * entropy.mean(-1) + dice


PIXEL_GAIN = 4.0  # Brings the plain mean, mostly easy background, to the scale of the balanced one


def iou(predicted: Tensor, truth: Tensor) -> Tensor:
    """Return IoU (B, M) of bool masks (B, M, H, W) and (B, 1, H, W); 1 where both are empty."""
    both = (predicted & truth).flatten(2).sum(-1)
    either = (predicted | truth).flatten(2).sum(-1)
    return torch.where(either > 0, both / either.clamp(min=1), torch.ones_like(both, dtype=torch.float32))


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """N clips with their tracks as one table."""

    number: int  # of the batch within the run
    images: Tensor  # (N * T, S, S) uint8
    frames: Tensor  # (L * N, T) int64, rows of `images` in each track's tracking order; L tracks a clip
    masks: Tensor  # (L * N, T, S, S) bool
    known: Tensor | None = None  # (L * N, T) bool, whether a mask is true and not only likely; None: all are

    def to(self, device: str) -> "Batch":
        """Return the batch on a device."""
        known = None if self.known is None else self.known.to(device)
        return Batch(self.number, self.images.to(device), self.frames.to(device), self.masks.to(device), known)


@dataclass(frozen=True, slots=True)
class PromptMix:
    """Prompts that tracks start with."""

    mask_share: float = 0.35  # of the tracks start with a mask
    click_share: float = 0.7  # of batches whose other tracks start with a click; the rest start with a box
    corrections: int = 3  # the number of corrective clicks is uniform up to this
    noisy: float = 0.3  # share of prompt masks with a wobbly outline
    at_once: float = 0.25  # share of batches whose corrective clicks come together
    far_anchor: float = 0.15  # share of batches whose last slice is given too
    correct_last: float = 0.25  # share of batches whose last slice gets a corrective click
    gap: float = 0.3  # share of batches that claim to be up to `gap_slices` further from their prompt than they are
    gap_slices: int = 30  # see there
    teacher: float = 0.0  # share of answers replaced by the truth before the next slice; high at first, zero in the end
    # share of carried answers that are moved a little, see :class:`slicecast.training.propagation.Plan`
    moved: float = 0.0
    # share of batches in which no answer is carried, so that memory alone says what the object is
    withheld: float = 0.0
    drawn: bool = True  # clicks and boxes are drawn into the dense prompt, as `dense_prompts` of the registry says


class ClipObjective:
    """Loss of a batch of clips; the same batch always gets the same prompts.

    Args:
        model: network to train.
        mix: prompts.
        weights: of the loss.
        seed: of the prompts.
    """

    def __init__(self, model: nn.Module, mix: PromptMix, weights: LossWeights, *, seed: int) -> None:
        self.model = model
        self.mix = mix
        self.weights = weights
        self.seed = seed

    def __call__(self, batch: Batch) -> Loss:
        rng = np.random.default_rng([self.seed, batch.number, 1])
        groups = self._groups(rng, batch)
        predictions = propagate(self.model, batch.images, groups, rng=rng, by_truth=True, plan=self._plan(rng, batch))
        return propagation_loss(predictions, self.weights)

    def _plan(self, rng: np.random.Generator, batch: Batch) -> Plan:
        gap = int(rng.integers(1, self.mix.gap_slices + 1)) if rng.random() < self.mix.gap else 0
        return Plan(
            far_anchor=bool(rng.random() < self.mix.far_anchor) and batch.frames.shape[1] > 2,
            correct_last=bool(rng.random() < self.mix.correct_last),
            gap=gap,
            teacher=self.mix.teacher,
            moved=self.mix.moved,
            withheld=bool(rng.random() < self.mix.withheld),
            drawn=self.mix.drawn,
        )

    def _groups(self, rng: np.random.Generator, batch: Batch) -> list[Group]:
        count = max(1, round(self.mix.mask_share * len(batch.frames)))
        kind = CLICK if rng.random() < self.mix.click_share else BOX
        corrections = int(rng.integers(0, self.mix.corrections + 1))
        at_once = bool(rng.random() < self.mix.at_once)
        first, rest = slice(None, count), slice(count, None)
        return [
            Group(MASK, batch.frames[first], batch.masks[first], _rows(batch.known, first), noisy=self.mix.noisy),
            Group(
                kind,
                batch.frames[rest],
                batch.masks[rest],
                _rows(batch.known, rest),
                corrections=corrections,
                at_once=at_once,
            ),
        ]


def _rows(known: Tensor | None, rows: slice) -> Tensor | None:
    return None if known is None else known[rows]


@torch.no_grad()
def predict(model: nn.Module, batch: Batch, kind: str, *, corrections: int = 0) -> list[Prediction]:
    """Propagate all tracks of a batch from one kind of prompt, as at inference."""
    group = Group(kind, batch.frames, batch.masks, corrections=corrections)
    return propagate(model, batch.images, [group], rng=np.random.default_rng(0), by_truth=False)
