"""Fine-tuning: a model's weights adapted to a campaign's labels, by `configs/training/finetune.yaml`.

Every round begins with the model's own weights, so that a bad round leaves nothing behind. (Adapting an interactive
network to the labels of its campaign: CLoPA, arXiv 2603.06426; SAM 2: SLM-SAM 2, arXiv 2505.01854.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from slicecast.config import build, read_config
from slicecast.errors import ConfigError
from slicecast.models.registry import ModelSpec
from slicecast.models.sam2_build import load_sam2
from slicecast.models.sam2_forward import prepare_for_training
from slicecast.training.automatic import AutomaticSettings
from slicecast.training.loop import LoopSettings, Watch, train
from slicecast.training.objective import ClipObjective, LossWeights, PromptMix
from slicecast.training.volumes import ClipSettings, LabelledBatches, LabelledObject

FILE = "training/finetune.yaml"

PARTS: Mapping[str, tuple[str, ...]] = {
    "all": ("",),
    "memory": ("memory_attention", "memory_encoder", "maskmem", "no_mem", "no_obj", "obj_ptr", "mask_downsample"),
    "decoder": ("sam_mask_decoder", "sam_prompt_encoder"),
}
"""What may be trained: name -> beginnings of the parameters' names. `decoder` takes all norms along."""

SMALL_PARAMETERS = 20_000_000
"""Networks up to this size are trained whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundSettings:
    """When a campaign's model is trained, on what, and how the result is judged.

    Raises:
        ConfigError: a value is out of range.
    """

    after_labels: int = 0  # a server begins a round by itself after so many new labels; 0: never
    least_labels: int = 3  # a round needs so many, and at least 2: one to learn from and one to judge by
    statuses: str = "submitted"  # which labels count: `submitted` (approved ones too) or `approved`
    slices: str = "all"  # what is learnt of them: `all`, or `touched`, the slices that a person prompted or changed
    folds: int = 2  # the labels are divided into so many parts; the weights that learnt the others are judged on each
    judged_labels: int = 20  # at most so many labels are used for judging
    margin: float = 0.01  # no kind of prompt may lose more Dice than this on average
    least_gain: float = 0.0  # all kinds together must gain more than this
    workers: int = 2  # trainings that run at a time, one process each

    def __post_init__(self) -> None:
        for name, known in (("statuses", ("submitted", "approved")), ("slices", ("all", "touched"))):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} is {getattr(self, name)!r} in {FILE}; it must be {' or '.join(known)}.")
        counts = {"after_labels": 0, "least_labels": 2, "folds": 2, "judged_labels": 2, "workers": 1}
        for name, least in counts.items():
            if not isinstance(getattr(self, name), int) or getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)!r} in {FILE}; it must be {least} or more.")
        if not (0 <= self.margin <= 1 and -1 <= self.least_gain <= 1):
            raise ConfigError(f"margin must lie between 0 and 1 in {FILE}, least_gain between -1 and 1.")


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneSettings:
    """Everything that `configs/training/finetune.yaml` says; raises ConfigError if a value is out of range."""

    parts: str = "auto"  # `auto` (the whole network where it is small, else `decoder`), `all`, `memory` or `decoder`
    seed: int = 1  # of everything random
    threads: int = 1  # of PyTorch
    round: RoundSettings = field(default_factory=RoundSettings)  # when, on what, and how the result is judged
    loop: LoopSettings
    clips: ClipSettings
    prompts: PromptMix
    loss: LossWeights
    automatic: AutomaticSettings = field(default_factory=AutomaticSettings)  # the network that segments without prompts

    def __post_init__(self) -> None:
        if self.parts not in ("auto", *PARTS):
            raise ConfigError(f"parts is {self.parts!r} in {FILE}; it must be auto, {', '.join(PARTS)}.")


def finetune_settings(content: Mapping[str, Any] | None = None) -> FinetuneSettings:
    """Read the settings, or build them from a mapping in the form of the YAML.

    Raises:
        ConfigError: one is unknown, missing or out of range.
    """
    return build(FinetuneSettings, read_config(FILE) if content is None else content, where=FILE)


def finetune(
    spec: ModelSpec,
    objects: Sequence[LabelledObject],
    settings: FinetuneSettings,
    *,
    folder: Path,
    watch: Watch | None = None,
) -> nn.Module:
    """Train from a model's weights, going on from the folder's last checkpoint; return the averaged network.

    Args:
        spec: the model; its registry entry says how prompts and masks enter the network.
        objects: what to learn.
        folder: of the run.
        watch: told of every step; may raise to stop.

    Raises:
        InputError: there is no labelled slice.
        StateError: the loss is no longer a finite number.
    """
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    model = prepare_for_training(load_sam2(spec)).to(settings.loop.device)
    freeze_others(model, settings.parts)
    mix = replace(settings.prompts, drawn=spec.dense_prompts, withheld=settings.prompts.withheld if spec.carry else 1.0)
    batches = LabelledBatches(objects, settings.clips, size_px=spec.image_size, seed=settings.seed)
    folder.mkdir(parents=True, exist_ok=True)
    return train(
        model,
        ClipObjective(model, mix, settings.loss, seed=settings.seed),
        lambda first, last: (batches[number].to(settings.loop.device) for number in range(first, last)),
        settings=settings.loop,
        folder=folder,
        seed=settings.seed,
        watch=watch,
    )


def freeze_others(model: nn.Module, parts: str) -> None:
    """Leave only the named parts of the network to be trained."""
    if parts == "auto":
        parts = "all" if sum(p.numel() for p in model.parameters()) <= SMALL_PARAMETERS else "decoder"
    norms = {id(p) for m in model.modules() if "Norm" in type(m).__name__ for p in m.parameters(recurse=False)}
    for name, parameter in model.named_parameters():
        wanted = name.startswith(PARTS[parts]) or (parts == "decoder" and id(parameter) in norms)
        parameter.requires_grad_(wanted)
