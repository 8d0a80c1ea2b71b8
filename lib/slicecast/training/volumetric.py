"""Training of volumetric networks: a click, the answer, corrective clicks on its errors; as they will be used."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from slicecast.models.layers3d import ClickStep
from slicecast.training.losses import iou, mask_loss


@dataclass(frozen=True, slots=True, eq=False)
class VolumeBatch:
    """Patches with one object each."""

    number: int  # of the batch within the run
    images: Tensor  # (B, S, S, S) float32, normalised as the network wants them
    masks: Tensor  # (B, S, S, S) bool
    points: Tensor  # (B, 3) int64, the first click of each, on its object


@dataclass(frozen=True, slots=True, eq=False)
class VolumeLoss:
    """The terms, and their sum."""

    total: Tensor
    mask: Tensor
    iou: Tensor

    def terms(self) -> dict[str, Tensor]:
        """Return all of them by name."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class ClickMix:
    """How many clicks training gives."""

    corrections: int = 2  # the number of corrective clicks is uniform up to this; only the last answer is learnt from
    balance: float = 0.5  # 1 weighs object and rest alike, 0 every voxel alike


class VolumeObjective:
    """From a batch to a loss.

    Args:
        model: a `PromptableVolume`.
        mix: see there.
        seed: of the run.
    """

    def __init__(self, model: Any, mix: ClickMix, *, seed: int) -> None:
        self._model, self._mix, self._seed = model, mix, seed

    def __call__(self, batch: VolumeBatch) -> VolumeLoss:
        """Return the loss of the last of some steps."""
        random = torch.Generator().manual_seed(self._seed * 1_000_003 + batch.number)
        corrections = int(torch.randint(self._mix.corrections + 1, (), generator=random))
        step = click_through(self._model, batch, corrections=corrections, random=random)[-1]
        truth = batch.masks[:, None]
        mask = mask_loss(step.logits, truth.float(), balance=self._mix.balance).mean()
        quality = (step.iou - iou(step.logits > 0, truth)).abs().mean()
        return VolumeLoss(mask + 0.1 * quality, mask, quality)


def click_through(model: Any, batch: VolumeBatch, *, corrections: int, random: torch.Generator) -> list[ClickStep]:
    """Return the answers to the first click and to each correction; only the last has gradients."""
    image = batch.images[:, None]
    embedding = model.encode(image)
    points, positive = batch.points[:, None], torch.ones(len(image), 1, dtype=torch.bool)
    steps: list[ClickStep] = []
    for number in range(corrections + 1):
        previous = steps[-1].previous if steps else None
        with torch.set_grad_enabled(torch.is_grad_enabled() and number == corrections):
            steps.append(model.segment(image, embedding, points, positive, previous))
        if number < corrections:
            point, sign = next_clicks(steps[-1].logits[:, 0] > 0, batch.masks, random)
            points, positive = torch.cat([points, point[:, None]], dim=1), torch.cat([positive, sign[:, None]], dim=1)
    return steps


def next_clicks(found: Tensor, truth: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Click on a random voxel that is wrong, inside a large error where there is one; on the object where none is.

    Args:
        found, truth: (B, S, S, S) bool.

    Returns:
        Points (B, 3), and whether each is on the object (B,).
    """
    wrong = found ^ truth
    core = F.avg_pool3d(wrong[:, None].float(), 3, 1, 1)[:, 0] > 0.99
    points = []
    for choices in zip(core, wrong, truth, strict=True):
        places = next(mask for mask in choices if mask.any()).nonzero()
        points.append(places[torch.randint(len(places), (), generator=random)])
    chosen = torch.stack(points)
    z, y, x = chosen.unbind(-1)
    return chosen, truth[torch.arange(len(truth)), z, y, x]
