"""Train the bundled model: reads `configs/training/nano.yaml`, wires generator, objective and loop, exports weights."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
import yaml
from ignite.distributed.launcher import Parallel
from safetensors.torch import load_file
from torch import nn

from slicecast.config import build, config_dir
from slicecast.demo.server_process import free_port
from slicecast.errors import ConfigError, WeightsMissing
from slicecast.models.sam2_build import build_sam2
from slicecast.models.sam2_forward import prepare_for_training
from slicecast.models.versions import write_weights
from slicecast.training.loop import LoopSettings, latest_checkpoint, train
from slicecast.training.objective import ClipObjective, LossWeights, PromptMix
from slicecast_lab.generated.batches import BatchSpec, GeneratedBatches, stream
from slicecast_lab.training.validate import Validator, make_validator

LOG_FORMAT = "%(asctime)s %(name)s %(message)s"

VALIDATION_SEED = 1_000_003  # Added to the run's seed, so that validation clips are never trained on


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationSettings:
    """The fixed clips that measure progress: how many batches of how many frames and which lengths."""

    batches: int
    frames: int
    slices: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NanoSettings:
    """Everything that `configs/training/nano.yaml` says."""

    architecture: str
    seed: int
    image_size: int
    workers: int
    threads: int
    processes: int
    loop: LoopSettings
    clips: BatchSpec
    validation: ValidationSettings
    prompts: PromptMix
    loss: LossWeights
    initial: str | None = None
    pointers: bool = True


def read_settings(path: Path) -> NanoSettings:
    """Read a training file; raises ConfigError if it is missing, or has an unknown or missing setting."""
    return settings_from(read_yaml(path), where=str(path))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a training file as it is; raises ConfigError if it cannot be read."""
    try:
        return dict(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"Cannot read the training settings {path}: {error}.") from error


def settings_from(content: Mapping[str, Any], *, where: str) -> NanoSettings:
    """Build the settings from a mapping in the form of the YAML."""
    clips = {"size_px": content.get("image_size"), **content.get("clips", {})}
    return build(NanoSettings, {**content, "clips": clips}, where=where)


def train_nano(settings: NanoSettings, folder: Path, *, show_progress: bool = False) -> nn.Module:
    """Train, or go on training, in a folder; return the averaged model.

    Raises:
        StateError: the loss is no longer a finite number.
    """
    if settings.processes > 1 and idist.get_world_size() == 1:
        # Ignite's own port is always the same: two runs on one machine would disturb each other.
        with Parallel(backend="gloo", nproc_per_node=settings.processes, master_port=free_port()) as parallel:
            parallel.run(_train_rank, settings, folder, show_progress)
    else:
        _train_rank(idist.get_rank(), settings, folder, show_progress)
    return averaged_model(settings, folder)


def _train_rank(rank: int, settings: NanoSettings, folder: Path, show_progress: bool) -> None:
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    torch.set_num_threads(settings.threads)
    folder.mkdir(parents=True, exist_ok=True)
    model = fresh_model(settings)
    batches = GeneratedBatches(settings.clips, seed=settings.seed)
    ranks = idist.get_world_size()
    train(
        model,
        ClipObjective(model, settings.prompts, settings.loss, seed=settings.seed),
        lambda first, last: stream(batches, first=first, last=last, workers=settings.workers, rank=rank, ranks=ranks),
        settings=settings.loop,
        folder=folder,
        seed=settings.seed,
        validate=validator(settings) if settings.validation.batches and rank == 0 else None,
        show_progress=show_progress,
    )


def averaged_model(settings: NanoSettings, folder: Path) -> nn.Module:
    """Return the running mean of the weights at a run's last checkpoint, ready to predict.

    Raises:
        WeightsMissing: the run has no checkpoint yet.
    """
    model = build_sam2(config_dir() / settings.architecture, image_size=settings.image_size, pointers=settings.pointers)
    return load_average(model, folder)


def load_average(model: nn.Module, folder: Path) -> nn.Module:
    """Give a model the running mean of the weights at a run's last checkpoint.

    Raises:
        WeightsMissing: the run has no checkpoint yet.
    """
    file = latest_checkpoint(folder)
    if file is None:
        raise WeightsMissing(f"No checkpoint in {folder}. Train there first, or name another folder.")
    model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True)["ema"])
    return model


def fresh_model(settings: NanoSettings) -> nn.Module:
    """Return the network with the seed's initial weights, or those of the file `initial`, ready to train."""
    torch.manual_seed(settings.seed)
    model = build_sam2(config_dir() / settings.architecture, image_size=settings.image_size, pointers=settings.pointers)
    if settings.initial is not None:
        start_from(model, Path(settings.initial))
    return prepare_for_training(model).to(settings.loop.device)


def start_from(model: nn.Module, path: Path) -> None:
    """Give a model the weights of a safetensors file; raises WeightsMissing if it is not there."""
    if not path.is_file():
        raise WeightsMissing(f"No weights at {path} to start from. Correct `initial`, or remove it to start from none.")
    model.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})


def validator(settings: NanoSettings) -> Validator:
    """Generate the validation clips of the settings."""
    spec = BatchSpec(
        frames=settings.validation.frames,
        slices=settings.validation.slices,
        size_px=settings.image_size,
        native_px=settings.clips.native_px,
    )
    return make_validator(spec, seed=settings.seed + VALIDATION_SEED, count=settings.validation.batches)


def export_weights(model: nn.Module, path: Path, *, half: bool = True) -> None:
    """Write the weights as safetensors, in float16 by default; replaces the file in one step."""
    part = path.with_suffix(".part")
    write_weights(model, part, dtype=torch.float16 if half else torch.float32)
    part.chmod(0o644)
    part.replace(path)
