"""Numbers for choosing a checkpoint, on generated clips that training never sees."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from slicecast.training.objective import Batch, iou, predict
from slicecast.training.propagation import BOX, CLICK, MASK, Prediction, full_size
from slicecast_lab.generated.batches import BatchSpec, GeneratedBatches

PROMPTS = {"mask": (MASK, 0), "box": (BOX, 0), "click": (CLICK, 0), "clicks4": (CLICK, 3)}
"""Name of a column -> kind of prompt, corrective clicks."""


@dataclass(frozen=True, slots=True, eq=False)
class Validator:
    """Measures a model on fixed clips."""

    batches: tuple[Batch, ...]  # the clips

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Return IoU by prompt on slices that show the object, and how well the object score tells the others."""
        out: dict[str, float] = {}
        for name, (kind, corrections) in PROMPTS.items():
            walks = [predict(model, batch, kind, corrections=corrections) for batch in self.batches]
            tracked = [p for w in walks for p in w if p.time > 0]
            out[name] = _mean_iou(tracked)
            if kind == MASK:
                out["presence_auc"] = _presence_auc(tracked)
            else:
                out[f"{name}_first"] = _mean_iou([[p for p in w if p.time == 0][-1] for w in walks])
        return out

    def copy_iou(self) -> float:
        """Return the IoU of copying each mask to the next slice: how alike neighbours are."""
        pairs = [(b.masks[:, :-1].flatten(0, 1), b.masks[:, 1:].flatten(0, 1)) for b in self.batches]
        before, after = (torch.cat(side) for side in zip(*pairs, strict=True))
        both = before.flatten(1).any(1) & after.flatten(1).any(1)
        return float(iou(before[both][:, None], after[both][:, None]).mean())


def make_validator(spec: BatchSpec, *, seed: int, count: int) -> Validator:
    """Generate the clips of a validator."""
    batches = GeneratedBatches(spec, seed=seed)
    return Validator(tuple(batches[number] for number in range(count)))


def _mean_iou(predictions: Sequence[Prediction]) -> float:
    values = []
    for p in predictions:
        present = p.truth.flatten(1).any(dim=1)
        masks = full_size(p.step.logits[present, 0].float(), p.truth.shape[-1]) > 0
        values.append(iou(masks[:, None], p.truth[present][:, None])[:, 0])
    return float(torch.cat(values).mean())


def _presence_auc(predictions: Sequence[Prediction]) -> float:
    """Return the chance that a slice with the object scores above one without; nan where there is no such pair."""
    scores = torch.cat([p.score[:, 0].float() for p in predictions])
    present = torch.cat([p.truth.flatten(1).any(dim=1) for p in predictions])
    return auc(scores, present)


def auc(scores: Tensor, positive: Tensor) -> float:
    """Return the area under the ROC curve of scores (N,) for bool (N,)."""
    ranks = torch.empty(len(scores), dtype=torch.float64)
    ranks[scores.argsort()] = torch.arange(1, len(scores) + 1, dtype=torch.float64)
    count, others = int(positive.sum()), int((~positive).sum())
    if not count or not others:
        return float(np.nan)
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * others))
