"""Train a small volumetric network on generated patches: a click, the answer, corrective clicks on its errors."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slicecast.config import build, config_dir
from slicecast.models.layers3d import ClickStep
from slicecast.models.volumetric import build_volumetric
from slicecast.training.loop import LoopSettings, train
from slicecast.training.objective import iou, mask_loss
from slicecast_lab.generated.batches import stream
from slicecast_lab.generated.patches import GeneratedPatches, PatchSpec, VolumeBatch
from slicecast_lab.training.nano import load_average, read_yaml, start_from


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


VALIDATION_SEED = 1_000_003  # Added to the run's seed, so that validation patches are never trained on


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumetricSettings:
    """Everything that a file such as `configs/training/ct_sam3d_nano.yaml` says."""

    architecture: str  # of the network, in `configs/`
    seed: int
    workers: int  # processes that make patches ahead
    threads: int
    loop: LoopSettings
    patches: PatchSpec
    clicks: ClickMix
    validation: int  # number of batches that measure progress
    initial: str | None = None  # weights to start from, as safetensors


def read_settings(path: Path) -> VolumetricSettings:
    """Read a training file; raises ConfigError if it is missing, or has an unknown or missing setting."""
    return build(VolumetricSettings, read_yaml(path), where=str(path))


def train_volumetric(settings: VolumetricSettings, folder: Path, *, show_progress: bool = False) -> nn.Module:
    """Train, or go on training, in a folder; return the averaged model.

    The stem's norms keep their first statistics: a patch's own grey values matter, and batches are small.

    Raises:
        StateError: the loss is no longer a finite number.
    """
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    folder.mkdir(parents=True, exist_ok=True)
    model = build_volumetric(config_dir() / settings.architecture).to(settings.loop.device)
    if settings.initial is not None:
        start_from(model, Path(settings.initial))
    model.to(memory_format=torch.channels_last_3d)  # a sixth faster on a CPU
    batches = GeneratedPatches(settings.patches, seed=settings.seed)
    return train(
        model,
        VolumeObjective(model, settings.clicks, seed=settings.seed),
        lambda first, last: stream(batches, first=first, last=last, workers=settings.workers),
        settings=settings.loop,
        folder=folder,
        seed=settings.seed,
        validate=lambda averaged: validate(averaged, settings),
        show_progress=show_progress,
    )


def validate(model: nn.Module, settings: VolumetricSettings) -> dict[str, float]:
    """Return the mean IoU after one click and after three, on patches that training never sees."""
    batches = GeneratedPatches(settings.patches, seed=settings.seed + VALIDATION_SEED)
    values: dict[str, list[torch.Tensor]] = {"click": [], "clicks3": []}
    with torch.inference_mode():
        for batch in (batches[number] for number in range(settings.validation)):
            random = torch.Generator().manual_seed(batch.number)
            steps = click_through(model, batch, corrections=2, random=random)
            for name, step in zip(values, (steps[0], steps[-1]), strict=True):
                values[name].append(iou(step.logits > 0, batch.masks[:, None]))
    return {name: float(torch.cat(found).mean()) for name, found in values.items()}


def averaged_volumetric(settings: VolumetricSettings, folder: Path) -> nn.Module:
    """Return the running mean of the weights at a run's last checkpoint, ready to predict.

    Raises:
        WeightsMissing: the run has no checkpoint yet.
    """
    return load_average(build_volumetric(config_dir() / settings.architecture), folder)
