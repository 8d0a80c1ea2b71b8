"""What training minimises: masks (best of three), their predicted IoU, and whether the object is there.

Masks are compared at half the input's resolution: fine enough to place an outline within a quarter cell of the
network's own mask, at a quarter of the cost.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from slicecast.training.propagation import Prediction


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


PIXEL_GAIN = 4.0
"""Brings the plain mean, mostly easy background, to the scale of the balanced one."""


def iou(predicted: Tensor, truth: Tensor) -> Tensor:
    """Return IoU (B, M) of bool masks (B, M, H, W) and (B, 1, H, W); 1 where both are empty."""
    both = (predicted & truth).flatten(2).sum(-1)
    either = (predicted | truth).flatten(2).sum(-1)
    return torch.where(either > 0, both / either.clamp(min=1), torch.ones_like(both, dtype=torch.float32))
