"""Automatic segmentation: a small 3D U-Net that learns a campaign's labels, configured by their spacing and size.

The rules follow nnU-Net (Isensee et al., Nature Methods 2021, online methods): median spacing, anisotropic strides,
Dice and cross-entropy, overlapping windows; the network and the transforms are MONAI's.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from monai.inferers.utils import sliding_window_inference
from monai.losses.dice import DiceCELoss
from monai.networks.nets.dynunet import DynUNet
from monai.transforms.compose import Compose
from monai.transforms.croppad.dictionary import RandCropByPosNegLabeld, SpatialPadd
from monai.transforms.intensity.dictionary import RandAdjustContrastd, RandGaussianNoised, RandScaleIntensityd
from monai.transforms.spatial.dictionary import RandAffined
from torch import Tensor, nn

from slicecast.errors import InputError
from slicecast.training.loop import LoopSettings, Watch, train
from slicecast.volume import Geometry, Volume, choose_window, normalise
from slicecast.volume.isotropic import resample

LEAST_AXIS = 8  # Voxels of a patch along an axis, below which it is halved no more
LEAST_LEVELS, MOST_LEVELS = 2, 4  # Times that a patch is halved


@dataclass(frozen=True, slots=True, kw_only=True)
class AutomaticSettings:
    """How the network is sized and varied."""

    channels: int = 16  # of the finest level; doubled at each halving, up to eight times as many
    patch_voxels: int = 110_592  # of a training patch, at most
    volume_voxels: int = 4_000_000  # of a scan of median size, at most; a finer grid is made coarser, all axes alike
    batch: int = 2  # patches of a step
    turn_rad: float = 0.2  # highest rotation about each axis
    scale: float = 0.15  # highest relative change of size
    least_dice: float = 0.5  # a network must find the structures of labels that it has not learnt so well, on average
    loop: LoopSettings = field(default_factory=lambda: LoopSettings(steps=300, ema_momentum=0.02))  # how it is trained


@dataclass(frozen=True, slots=True, kw_only=True)
class AutomaticPlan:
    """What a network needs to know of its scans."""

    names: tuple[str, ...]  # of the structures; the n-th is class n, 0 is the background
    spacing_mm: tuple[float, float, float]  # of the grid it works on, x, y, z
    patch_kji: tuple[int, int, int]  # voxels of a window
    strides_kji: tuple[tuple[int, int, int], ...]  # of each halving
    channels: int  # of the finest level

    def network(self) -> nn.Module:
        """Build the network: logits (B, 1 + names, k, j, i) from grey values (B, 1, k, j, i)."""
        levels = len(self.strides_kji)
        strides = [(1, 1, 1), *self.strides_kji]
        return DynUNet(
            spatial_dims=3,
            in_channels=1,
            out_channels=1 + len(self.names),
            kernel_size=[3] * (levels + 1),
            strides=strides,
            upsample_kernel_size=strides[1:],
            filters=[self.channels * min(8, 2**n) for n in range(levels + 1)],
            res_block=True,
        )

    def grid(self, stored: Geometry) -> Geometry:
        """Return a scan's grid at the plan's spacing."""
        size = np.maximum(1, np.round(np.multiply(stored.size_ijk, stored.spacing_mm) / self.spacing_mm)).astype(int)
        return Geometry(tuple(size.tolist()), self.spacing_mm, stored.origin_mm, stored.direction)


@dataclass(frozen=True, slots=True, eq=False)
class LabelledVolume:
    """A scan to learn from, in canonical orientation."""

    volume: Volume  # the scan
    label: np.ndarray  # uint8 [k, j, i] on its grid, the classes of the plan


@dataclass(frozen=True, slots=True, eq=False)
class _Loss:
    total: Tensor

    def terms(self) -> Mapping[str, Tensor]:
        return {"total": self.total}


def plan_for(geometries: Sequence[Geometry], names: Sequence[str], settings: AutomaticSettings) -> AutomaticPlan:
    """Configure a network for scans of these grids, in canonical orientation.

    Raises:
        InputError: there is no scan, or no structure.
    """
    if not geometries or not names:
        raise InputError("Automatic segmentation learns from labels, and there are none. Submit some first.")
    spacing = np.median([g.spacing_mm for g in geometries], axis=0)
    size = np.median([np.multiply(g.size_ijk, g.spacing_mm) for g in geometries], axis=0) / spacing
    spacing = spacing * max(1.0, float(np.prod(size) / settings.volume_voxels) ** (1 / 3))
    size = np.median([np.multiply(g.size_ijk, g.spacing_mm) for g in geometries], axis=0) / spacing
    patch, strides = _patch(size[::-1], spacing[::-1], settings.patch_voxels)
    x, y, z = (float(s) for s in spacing)
    return AutomaticPlan(
        names=tuple(names), spacing_mm=(x, y, z), patch_kji=patch, strides_kji=strides, channels=settings.channels
    )


def _patch(
    size: np.ndarray, spacing: np.ndarray, most: int
) -> tuple[tuple[int, int, int], tuple[tuple[int, int, int], ...]]:
    """Return the window and the halvings: an axis is halved while it is long enough and not coarser than the others."""
    wanted = np.maximum(1.0, size)
    while np.prod(wanted) > most:
        longest = int(np.argmax(wanted * (wanted > LEAST_AXIS)))
        wanted[longest] *= 0.95
    left, pitch = wanted.copy(), spacing.astype(float)
    strides: list[tuple[int, int, int]] = []
    while len(strides) < MOST_LEVELS:
        enough = 2 * LEAST_AXIS if len(strides) >= LEAST_LEVELS else 2
        halved = (left >= enough) & (pitch <= 2 * pitch.min())
        if not halved.any():
            break
        k, j, i = (int(n) for n in np.where(halved, 2, 1))
        strides.append((k, j, i))
        left, pitch = np.where(halved, left / 2, left), np.where(halved, pitch * 2, pitch)
    divisor = np.prod(strides, axis=0) if strides else np.ones(3, int)
    k, j, i = (int(n) for n in np.maximum(1, np.ceil(wanted / divisor)).astype(int) * divisor)
    return (k, j, i), tuple(strides)


def train_automatic(
    plan: AutomaticPlan,
    volumes: Sequence[LabelledVolume],
    *,
    settings: AutomaticSettings,
    seed: int,
    threads: int,
    folder: Path,
    device: str = "cpu",
    watch: Watch | None = None,
) -> nn.Module:
    """Train from nothing, going on from the folder's last checkpoint; return the averaged network.

    Args:
        volumes: what to learn; they are held in memory on the plan's grid.
        folder: of the run.
        watch: told of every step; may raise to stop.

    Raises:
        StateError: the loss is no longer a finite number.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    model = plan.network().to(device)
    loss = DiceCELoss(to_onehot_y=True, softmax=True, batch=True, include_background=False)

    def objective(batch: tuple[Tensor, Tensor]) -> _Loss:
        images, labels = (part.to(device) for part in batch)
        return _Loss(loss(model(images), labels))

    prepared = [_prepared(plan, given) for given in volumes]
    batches = _Batches(plan, settings, prepared, seed)
    return train(
        model, objective, batches, settings=replace(settings.loop, device=device), folder=folder, seed=seed, watch=watch
    )


class _Batches:
    """Augmented patches by number; the same number always gives the same batch."""

    def __init__(
        self, plan: AutomaticPlan, settings: AutomaticSettings, cases: Sequence[dict[str, Tensor]], seed: int
    ) -> None:
        self._cases, self._size, self._seed = cases, settings.batch, seed
        both, turn, scale = ("image", "label"), settings.turn_rad, settings.scale
        self._transform = Compose([
            SpatialPadd(both, plan.patch_kji),
            RandCropByPosNegLabeld(both, "label", plan.patch_kji, pos=2, neg=1, num_samples=1),
            RandAffined(
                both,
                prob=0.8,
                rotate_range=(turn,) * 3,
                scale_range=(scale,) * 3,
                mode=("bilinear", "nearest"),
                padding_mode="border",
            ),
            RandAdjustContrastd("image", prob=0.3, gamma=(0.7, 1.5)),
            RandScaleIntensityd("image", factors=0.2, prob=0.3),
            RandGaussianNoised("image", prob=0.3, std=0.05),
        ])  # fmt: skip

    def __call__(self, first: int, last: int) -> Iterator[tuple[Tensor, Tensor]]:
        return (self._batch(number) for number in range(first, last))

    def _batch(self, number: int) -> tuple[Tensor, Tensor]:
        random = np.random.default_rng((self._seed, number))
        self._transform.set_random_state(seed=int(random.integers(2**31)))
        drawn = [self._transform(dict(self._cases[n]))[0] for n in random.integers(len(self._cases), size=self._size)]
        return tuple(torch.stack([torch.as_tensor(part[key]) for part in drawn]) for key in ("image", "label"))  # type: ignore[return-value]


def _prepared(plan: AutomaticPlan, given: LabelledVolume) -> dict[str, Tensor]:
    """Return a scan and its label on the plan's grid, (1, k, j, i) each."""
    geometry = given.volume.geometry
    label = resample(geometry.to_image(given.label), plan.grid(geometry), outside=0.0, nearest=True)
    return {"image": _greys(plan, given.volume), "label": torch.as_tensor(label[None].astype(np.float32))}


def _greys(plan: AutomaticPlan, volume: Volume) -> Tensor:
    greys = normalise(volume.array, choose_window(volume)).astype(np.float32)
    image = resample(volume.geometry.to_image(greys), plan.grid(volume.geometry), outside=float(greys.min()))
    return torch.as_tensor(image[None])


@torch.inference_mode()
def predict_automatic(plan: AutomaticPlan, network: nn.Module, volume: Volume) -> np.ndarray:
    """Segment a scan in overlapping windows.

    Args:
        network: of the plan, ready to predict.
        volume: in canonical orientation.

    Returns:
        the classes, uint8 [k, j, i] on the scan's grid.
    """
    device = next(network.parameters()).device
    logits = sliding_window_inference(
        _greys(plan, volume)[None].to(device), plan.patch_kji, 1, network, overlap=0.5, mode="gaussian"
    )
    grid, best = plan.grid(volume.geometry), np.full(volume.array.shape, -np.inf, dtype=np.float32)
    found = np.zeros(volume.array.shape, dtype=np.uint8)
    shares = torch.softmax(torch.as_tensor(logits), dim=1)[0].cpu().numpy()
    for number, share in enumerate(shares):
        here = resample(grid.to_image(share), volume.geometry, outside=float(number == 0))
        found[here > best] = number
        np.maximum(best, here, out=best)
    return found
