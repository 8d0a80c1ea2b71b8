"""Fine-tuning: a model's weights adapted to a campaign's labels, by `configs/training/finetune.yaml`.

Every round begins with the model's own weights, so that a bad round leaves nothing behind. (Adapting an interactive
network to the labels of its campaign: CLoPA, arXiv 2603.06426; SAM 2: SLM-SAM 2, arXiv 2505.01854.)

It learns clips: runs of neighbouring slices at their own distance, past both ends of the object, in the engine's
windows. Several tracks meet a clip, each from a prompted slice of its own in one direction: encoding a slice costs more
than tracking through it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from slicecast.config import build, read_config, require_numbers
from slicecast.engine.anchors import CLICK_SCALES, FILL_RANGE, MIN_CLICKED_SIDE_PX
from slicecast.engine.crop_window import (
    CropWindow,
    Frames,
    centred_crop,
    crop_around,
    cut,
    grown,
    resample,
    touches_border,
    whole_crop,
)
from slicecast.errors import ConfigError, InputError
from slicecast.models.registry import ModelSpec
from slicecast.models.sam2_build import load_sam2
from slicecast.models.sam2_forward import prepare_for_training
from slicecast.training.automatic import AutomaticSettings
from slicecast.training.loop import LoopSettings, Watch, train
from slicecast.training.objective import Batch, ClipObjective, LossWeights, PromptMix
from slicecast.volume.slices import box_of


@dataclass(frozen=True, slots=True, eq=False)
class LabelledObject:
    """One structure of a labelled volume, as slices along the axis that the product uses."""

    case: str  # names the volume
    frames: Frames  # its slices, N of them
    masks: NDArray[np.bool_]  # (N, H, W) bool
    known: NDArray[np.bool_]  # (N,) bool, the slices whose mask a person vouches for

    @property
    def anchors(self) -> NDArray[np.intp]:
        """The slices that can be prompted: the object is there, and a person vouches for it."""
        return np.flatnonzero(self.masks.any(axis=(1, 2)) & self.known)


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """How clips are varied; deviations of a normal distribution unless said otherwise."""

    flip: float = 0.5  # share of the clips that are mirrored
    turn_deg: float = 8.0  # rotation
    scale: float = 0.08  # logarithm of the size
    gamma: float = 0.2  # logarithm of the exponent of the grey values
    contrast: float = 0.15  # relative change of contrast
    brightness: float = 0.05  # shift of the grey values, which lie in [0, 1]
    noise: float = 0.03  # highest deviation of noise
    inverted: float = 0.0  # share of the clips whose grey values are inverted


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSettings:
    """What a batch holds."""

    clips: int = 3  # of a batch
    tracks: int = 3  # of a clip
    # lengths of a track to choose from, one for each batch; a clip is nearly twice as long, so that every slice of it
    # leaves room for a track
    slices: tuple[int, ...] = (5, 8)
    margin: tuple[float, float] = (1.7, 2.4)  # range of a window's side over that of the object on its prompted slice
    # share of the clips seen as after a click alone, through one of the windows that the engine tries
    clicked: float = 0.2
    augment: Augmentation = field(default_factory=Augmentation)  # how they are varied


class LabelledBatches:
    """Batches by number; the same number always gives the same batch.

    Args:
        objects: to draw from; each volume is drawn as often as any other.
        settings: what a batch holds.
        size_px: S.
        seed: of the whole sequence.

    Raises:
        InputError: no slice shows an object that a person vouches for.
    """

    def __init__(self, objects: Sequence[LabelledObject], settings: ClipSettings, *, size_px: int, seed: int) -> None:
        usable = [thing for thing in objects if len(thing.anchors)]
        if not usable:
            raise InputError("There is no labelled slice to learn from. Submit a label first.")
        self._cases = [[o for o in usable if o.case == case] for case in dict.fromkeys(o.case for o in usable)]
        self._settings, self._size, self._seed = settings, size_px, seed

    def __getitem__(self, number: int) -> Batch:
        rng = np.random.default_rng([self._seed, number, 2])
        length = int(rng.choice(self._settings.slices))
        clips = [self._clip(rng, length) for _ in range(self._settings.clips)]
        images, masks, known = (torch.cat(part) for part in zip(*clips, strict=True))
        starts = [self._tracks(rng, seen.flatten(1).any(1) & sure, length) for _, seen, sure in clips]
        rows = torch.from_numpy(np.concatenate([n * (2 * length - 2) + own for n, own in enumerate(starts)]))
        rows = rows[torch.from_numpy(rng.permutation(len(rows)))]
        return Batch(number, images, rows, masks[rows], known[rows])

    def _tracks(self, rng: np.random.Generator, shown: Tensor, length: int) -> NDArray[np.int64]:
        """Return the rows (tracks, T) of a clip that tracks meet; each begins where the object is shown."""
        starts = rng.choice(np.flatnonzero(shown), self._settings.tracks)
        upward = np.where(starts < length - 1, 1, -1)[:, None]  # a clip of 2T-2 slices has room on one side only
        return np.asarray(starts[:, None] + upward * np.arange(length))

    def _clip(self, rng: np.random.Generator, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return neighbouring slices (2T-2, S, S) uint8, their masks, and whether these are known."""
        own = self._cases[int(rng.integers(len(self._cases)))]
        thing = own[int(rng.integers(len(own)))]
        areas = np.sqrt(thing.masks[thing.anchors].sum(axis=(1, 2)))
        place, anchor = int(rng.integers(2 * length - 2)), int(rng.choice(thing.anchors, p=areas / areas.sum()))
        numbers = np.clip(anchor - place + np.arange(2 * length - 2), 0, thing.frames.count - 1)
        crop, size = self._window(rng, thing, anchor, numbers), (self._size, self._size)
        greys = np.stack([thing.frames.render(int(n), crop, size=self._size) for n in numbers])
        shares = np.stack([resample(cut(thing.masks[n].astype(np.float32), crop), size) for n in numbers])
        images, seen = augmented(rng, greys, shares, self._settings.augment)
        if not seen[place].any():  # moved out of the window, or smaller than a pixel of it
            images, seen = greys, shares >= min(0.5, float(shares[place].max()))
        known = torch.from_numpy(thing.known[numbers])
        return torch.from_numpy((255 * images).round().astype(np.uint8)), torch.from_numpy(seen), known

    def _window(
        self, rng: np.random.Generator, thing: LabelledObject, anchor: int, numbers: NDArray[np.intp]
    ) -> CropWindow:
        mask, frames = thing.masks[anchor], thing.frames
        if rng.random() < self._settings.clicked:
            rows, columns = np.nonzero(mask)
            place = int(rng.integers(len(rows)))
            return _clicked_window(rng, frames, mask, (int(columns[place]), int(rows[place])))
        crop = crop_around(frames, box_of(mask)[None], margin=float(rng.uniform(*self._settings.margin)))
        wide = thing.masks[numbers].any(axis=0)
        size = (self._size // 4, self._size // 4)
        seen = resample(cut(wide.astype(np.float32), crop), size) > 0
        return grown(crop, frames) if touches_border(crop, seen, frames.shape_hw) else crop


def _clicked_window(
    rng: np.random.Generator, frames: Frames, mask: NDArray[np.bool_], xy: tuple[int, int]
) -> CropWindow:
    """Return one of the windows that the engine tries after a click, in which the object has a fitting size."""
    whole = whole_crop(frames)
    sides = [whole.width * share for share in CLICK_SCALES[1:] if whole.width * share >= MIN_CLICKED_SIDE_PX]
    crops = [whole, *(centred_crop(frames, xy, side * frames.spacing_xy_mm[0]) for side in sides)]
    shares = [float(cut(mask, crop).mean()) for crop in crops]
    fitting = [c for c, share in zip(crops, shares, strict=True) if FILL_RANGE[0] <= share <= FILL_RANGE[1]] or crops
    return fitting[int(rng.integers(len(fitting)))]


def augmented(
    rng: np.random.Generator, images: NDArray[np.float32], shares: NDArray[np.float32], how: Augmentation
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Vary a clip's slices (T, S, S) in [0, 1] and the share of each pixel that is object, alike on all slices."""
    angle, size = np.deg2rad(rng.normal(0, how.turn_deg)), np.exp(rng.normal(0, how.scale))
    flip = -1.0 if rng.random() < how.flip else 1.0
    cos, sin = np.cos(angle) * size, np.sin(angle) * size
    theta = torch.tensor([[[flip * cos, -sin, 0.0], [flip * sin, cos, 0.0]]], dtype=torch.float32)
    both = torch.from_numpy(np.stack([images, shares], axis=1))
    grid = F.affine_grid(theta.expand(len(both), 2, 3), list(both.shape), align_corners=False)
    moved = F.grid_sample(both, grid, mode="bilinear", align_corners=False).numpy()
    greys = _greys(rng, moved[:, 0], how)
    return greys, moved[:, 1] >= 0.5


def _greys(rng: np.random.Generator, images: NDArray[np.float32], how: Augmentation) -> NDArray[np.float32]:
    out = np.clip(images, 0, 1) ** np.exp(rng.normal(0, how.gamma))
    out = (out - 0.5) * (1 + rng.normal(0, how.contrast)) + 0.5 + rng.normal(0, how.brightness)
    out += rng.standard_normal(out.shape, dtype=np.float32) * rng.uniform(0, how.noise)
    if rng.random() < how.inverted:
        out = 1 - out
    return np.clip(out, 0, 1).astype(np.float32)


MARGIN_SLICES = 16  # Slices kept on both sides of an object; no track runs further past its end


def store_object(folder: Path, thing: LabelledObject) -> None:
    """Write an object and the slices around it to a folder, where training reads them without holding them."""
    shown = np.flatnonzero(thing.masks.any(axis=(1, 2)))
    kept = slice(max(0, int(shown[0]) - MARGIN_SLICES), int(shown[-1]) + MARGIN_SLICES + 1)
    numbers = range(thing.frames.count)[kept]
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "masks.npy", thing.masks[kept])
    np.save(folder / "known.npy", thing.known[kept])
    np.save(folder / "greys.npy", np.stack([(255 * thing.frames.read(n)).round().astype(np.uint8) for n in numbers]))
    about = {"case": thing.case, "spacing_xy_mm": thing.frames.spacing_xy_mm, "key": thing.frames.key}
    (folder / "object.json").write_text(json.dumps(about), encoding="utf-8")


def stored_object(folder: Path) -> LabelledObject:
    """Open what :func:`store_object` wrote; voxels stay on the disk until they are needed."""
    about = json.loads((folder / "object.json").read_text(encoding="utf-8"))
    greys, masks = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("greys", "masks"))
    count, rows, columns = greys.shape
    frames = Frames(
        count=count,
        shape_hw=(rows, columns),
        spacing_xy_mm=tuple(about["spacing_xy_mm"]),
        read=lambda number: greys[number].astype(np.float32) / 255,
        key=about["key"],
    )
    return LabelledObject(about["case"], frames, masks, np.load(folder / "known.npy"))


FILE = "training/finetune.yaml"

PARTS: Mapping[str, tuple[str, ...]] = {
    "all": ("",),
    "memory": ("memory_attention", "memory_encoder", "maskmem", "no_mem", "no_obj", "obj_ptr", "mask_downsample"),
    "decoder": ("sam_mask_decoder", "sam_prompt_encoder"),
}
"""What may be trained: name -> beginnings of the parameters' names. `decoder` takes all norms along."""

LORA = "lora"  # What `decoder` trains, and low-rank changes of the encoder's attention
RANK = 8  # Of those

SMALL_PARAMETERS = 20_000_000  # Networks up to this size are trained whole


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
    automatic: bool = True  # the network that segments without prompts learns the same labels afterwards

    def __post_init__(self) -> None:
        for name, known in (("statuses", ("submitted", "approved")), ("slices", ("all", "touched"))):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} is {getattr(self, name)!r} in {FILE}; it must be {' or '.join(known)}.")
        require_numbers(self, "after_labels", low=0, where=FILE)
        require_numbers(self, "least_labels", "folds", "judged_labels", low=2, where=FILE)
        require_numbers(self, "workers", where=FILE)
        require_numbers(self, "margin", low=0, high=1, whole=False, where=FILE)
        require_numbers(self, "least_gain", low=-1, high=1, whole=False, where=FILE)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneSettings:
    """Everything that `configs/training/finetune.yaml` says; raises ConfigError if a value is out of range."""

    # what is trained: `all`, `memory`, `decoder` with all norms, `lora` (that, and low-rank changes of the encoder's
    # attention), or `auto`: the whole network where it is small, else `decoder`
    parts: str = "auto"
    seed: int = 1  # of everything random
    threads: int = 1  # of PyTorch
    round: RoundSettings = field(default_factory=RoundSettings)  # when, on what, and how the result is judged
    loop: LoopSettings
    clips: ClipSettings
    prompts: PromptMix
    loss: LossWeights
    automatic: AutomaticSettings = field(default_factory=AutomaticSettings)  # the network that segments without prompts

    def __post_init__(self) -> None:
        known = ("auto", *PARTS, LORA)
        if self.parts not in known:
            raise ConfigError(f"parts is {self.parts!r} in {FILE}; it must be one of {', '.join(known)}.")


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
    choose_parts(model, settings.parts)
    mix = replace(settings.prompts, drawn=spec.dense_prompts, withheld=settings.prompts.withheld if spec.carry else 1.0)
    batches = LabelledBatches(objects, settings.clips, size_px=spec.image_size, seed=settings.seed)
    folder.mkdir(parents=True, exist_ok=True)
    averaged = train(
        model,
        ClipObjective(model, mix, settings.loss, seed=settings.seed),
        lambda first, last: (batches[number].to(settings.loop.device) for number in range(first, last)),
        settings=settings.loop,
        folder=folder,
        seed=settings.seed,
        watch=watch,
    )
    return merged(averaged)


def choose_parts(model: nn.Module, parts: str) -> None:
    """Leave only the named parts of the network to be trained; `lora` adds what it trains."""
    if parts == "auto":
        parts = "all" if sum(p.numel() for p in model.parameters()) <= SMALL_PARAMETERS else "decoder"
    if parts == LORA:
        for linear in _attention(model):
            parametrize.register_parametrization(linear, "weight", LowRank(linear, RANK))
    norms = {id(p) for m in model.modules() if "Norm" in type(m).__name__ for p in m.parameters(recurse=False)}
    added = {id(p) for m in model.modules() if isinstance(m, LowRank) for p in m.parameters()}
    taken = norms | added if parts in ("decoder", LORA) else set()
    for name, parameter in model.named_parameters():
        named = name.startswith(PARTS["decoder" if parts == LORA else parts])
        parameter.requires_grad_(named or id(parameter) in taken)


def merged(model: nn.Module) -> nn.Module:
    """Make low-rank changes part of the weights, so that the network has the parameters that it always had."""
    for linear in _attention(model):
        if parametrize.is_parametrized(linear):
            parametrize.remove_parametrizations(linear, "weight")
    return model


def _attention(model: nn.Module) -> list[nn.Linear]:
    """Return the projections of the encoder's attention, `attn.qkv` and `attn.proj`."""
    named = model.named_modules()
    return [m for name, m in named if name.startswith("image_encoder") and name.endswith((".attn.qkv", ".attn.proj"))]


class LowRank(nn.Module):
    """A trained change of low rank to a frozen matrix; nothing at first (LoRA, arXiv 2106.09685, section 4.1)."""

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, linear.in_features) / linear.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the changed matrix (out, in)."""
        return weight + self.up @ self.down
