"""Train a small volumetric network on generated patches: settings, validation, and the run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from slicecast.config import build, config_dir, refuse_unknown_keys
from slicecast.models.volumetric_build import build_volumetric
from slicecast.training.loop import LoopSettings, load_average, train
from slicecast.training.losses import iou
from slicecast.training.volumetric import ClickMix, VolumeObjective, click_through
from slicecast_lab.generated.patches import GeneratedPatches, PatchSpec
from slicecast_lab.training.nano import read_yaml

VALIDATION_SEED = 1_000_003
"""Added to the run's seed, so that validation patches are never trained on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumetricSettings:
    """Everything that a file such as `configs/training/ct_sam3d_nano.yaml` says."""

    architecture: str  # of the network, in `configs/`
    seed: int
    threads: int
    loop: LoopSettings
    patches: PatchSpec
    clicks: ClickMix
    validation: int  # number of batches that measure progress


def read_settings(path: Path) -> VolumetricSettings:
    """Read a training file; raises ConfigError if it is missing, or has an unknown or missing setting."""
    content = read_yaml(path)
    sections: dict[str, Any] = {"loop": LoopSettings, "patches": PatchSpec, "clicks": ClickMix}
    refuse_unknown_keys(content, VolumetricSettings.__dataclass_fields__, where=str(path))
    built = {name: build(cls, content.get(name, {}), where=f"{path}: {name}") for name, cls in sections.items()}
    return build(VolumetricSettings, {**content, **built}, where=str(path))


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
    batches = GeneratedPatches(settings.patches, seed=settings.seed)
    return train(
        model,
        VolumeObjective(model, settings.clicks, seed=settings.seed),
        lambda first, last: (batches[number] for number in range(first, last)),
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
