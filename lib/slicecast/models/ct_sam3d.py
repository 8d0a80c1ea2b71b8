"""The network of CT-SAM3D (Guo et al., arXiv 2403.15063), with the published checkpoints' names of tensors.

Our own implementation from the published facts; `tests/models/test_ct_sam3d.py` checks it against numbers of the
published code. Axes of volumes: (z, y, x), towards the patient's head, back and left (ITK's world axes), 1.5 mm.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from monai.networks.nets.unet import UNet
from torch import Tensor, nn

from slicecast.models.layers3d import (
    MLP,
    ClickStep,
    LayerNorm3d,
    MaskAnswer,
    join_heads,
    split_heads,
    to_tokens,
    to_volume,
)

REDUCTIONS = (8, 4, 2, 1)  # Each stage's keys are this much coarser than its queries, along each side
CLICK_SIGMA, CLICK_REACH = 2.0, 8  # Deviation and reach in voxels of the Gaussian that marks a click

STAGES = 4

LIKE_WIDTH = 0.1  # Difference in grey value, of a range of 1, at which a voxel hardly looks like the clicked ones


@dataclass(frozen=True, slots=True, kw_only=True)
class CtSam3DSize:
    """Sizes of the network; the defaults are the published `small` variant (84.7 million parameters)."""

    image_size: int = 64  # voxels along each side of the input; a multiple of 32
    depths: tuple[int, ...] = (1, 2, 12, 2)  # of the encoder's four stages
    widths: tuple[int, ...] = (96, 192, 384, 768)  # of the encoder's four stages
    heads: tuple[int, ...] = (1, 2, 4, 8)  # of the encoder's four stages
    features: tuple[int, ...] = (128, 128, 128, 256)  # channels that the stages hand to the decoder
    up: tuple[int, ...] = (128, 128, 128, 128, 64)  # channels after each of the decoder's five steps up
    prompt: int = 128  # channels of the layers that look at the prompts' map
    # channels of the network that proposes clicks in neighbouring patches; empty for none
    cpp: tuple[int, ...] = (16, 32, 64, 128, 256)
    iou: int = 256  # hidden width of the head that predicts IoU
    # the decoder also sees the image, and how much each voxel looks like the clicked ones, wherever it sees the
    # prompts. Ours; the published network lets it see the prompts alone.
    guided: bool = False

    @property
    def maps(self) -> int:
        """Channels of the map that the decoder sees: previous mask, positive and negative clicks, guides."""
        return 5 if self.guided else 3


class CtSam3D(nn.Module):
    """CT-SAM3D: a pyramid encoder, clicks as maps beside the previous answer, a decoder that they steer at every scale.

    Args:
        size: of its parts.
    """

    def __init__(self, size: CtSam3DSize | None = None) -> None:
        super().__init__()
        self.size = size or CtSam3DSize()
        self.image_encoder = PyramidEncoder(self.size)
        self.prompt_encoder = nn.Module()  # holds one buffer that the checkpoints have and nothing uses
        self.prompt_encoder.pe_layer = nn.Module()
        self.prompt_encoder.pe_layer.register_buffer("positional_encoding_gaussian_matrix", torch.zeros(3, 128))
        self.mask_decoder: nn.Module = SpadeDecoder(self.size)
        channels = self.size.cpp
        steps = (2,) * (len(channels) - 1)
        self.cpp_predictor: nn.Module | None = UNet(3, 3, 1, channels, steps, num_res_units=2) if channels else None

    @property
    def side(self) -> int:
        """Voxels along each side of the input."""
        return self.size.image_size

    def encode(self, image: Tensor) -> list[Tensor]:
        """Return features, fine to coarse, of a volume (B, 1, S, S, S) in [0, 1]."""
        return self.image_encoder(image)

    def decode(self, features: list[Tensor], prompts: Tensor) -> MaskAnswer:
        """Return the single mask.

        Args:
            features: of `encode`.
            prompts: (B, 3, S, S, S): previous probability (zeros at first), positive clicks, negative clicks; and two
                more where the network is guided.
        """
        answer = self.mask_decoder(features, prompts)
        return MaskAnswer(answer.logits[:, :1], answer.iou[:, :1])

    def segment(
        self, image: Tensor, embedding: list[Tensor], points: Tensor, positive: Tensor, previous: Tensor | None
    ) -> ClickStep:
        """Answer all clicks so far; see `PromptableVolume`. Every step is fed the probability, the first one zeros."""
        if previous is None:
            previous = torch.zeros_like(image)
        clicks = torch.stack([click_maps(*given, self.side) for given in zip(points, positive, strict=True)])
        guides = [guide_maps(image, points, positive)] if self.size.guided else []
        answer = self.decode(embedding, torch.cat([previous, clicks, *guides], dim=1))
        return ClickStep(answer.logits, answer.logits.sigmoid(), answer.iou)

    def propose(self, own: Tensor, mask: Tensor, neighbour: Tensor) -> Tensor:
        """Return where to click in a neighbouring patch: a heat map (B, 1, S, S, S) on its grid.

        Args:
            own, neighbour: (B, 1, S, S, S) patches in [0, 1].
            mask: (B, 1, S, S, S), the answer in the own patch as 0 and 1.
        """
        assert self.cpp_predictor is not None
        return self.cpp_predictor(torch.cat([own, mask, neighbour], dim=1))


def click_maps(points: Tensor, positive: Tensor, side: int) -> Tensor:
    """Return maps (2, S, S, S) of positive and of negative clicks.

    A later click's stamp replaces what it covers, zeros included, as in the published code.

    Args:
        points: (P, 3) voxels (z, y, x) inside the patch.
        positive: (P,) bool.
    """
    maps = torch.zeros(2, side, side, side, device=points.device)
    axis = torch.arange(-CLICK_REACH, CLICK_REACH + 1, device=points.device)
    squares = axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2
    stamp = torch.exp(-squares / (2 * CLICK_SIGMA**2))
    stamp[stamp < torch.finfo(torch.float32).eps] = 0
    for point, sign in zip(points.tolist(), positive.tolist(), strict=True):
        starts = [int(p) - CLICK_REACH for p in point]
        there = tuple(slice(max(0, s), s + len(axis)) for s in starts)
        here = tuple(slice(max(0, -s), min(len(axis), side - s)) for s in starts)
        maps[(0 if sign else 1, *there)] = stamp[here]
    return maps


def guide_maps(image: Tensor, points: Tensor, positive: Tensor) -> Tensor:
    """Return (B, 2, S, S, S): the image, and how much each voxel looks like what was clicked on.

    Args:
        image: (B, 1, S, S, S) in [0, 1].
        points: (B, P, 3).
        positive: (B, P) bool; at least one of each row.
    """
    smooth = F.avg_pool3d(image, 3, 1, 1)
    rows = torch.arange(len(image), device=image.device)[:, None]
    z, y, x = points.unbind(-1)
    clicked = smooth[rows, 0, z, y, x]
    value = (clicked * positive).sum(1) / positive.sum(1).clamp(min=1)
    unlike = (smooth - value[:, None, None, None, None]) / LIKE_WIDTH
    return torch.cat([image, torch.exp(-unlike.square() / 2)], dim=1)


class PixelAttention(nn.Module):
    """Every voxel weighed by what is around it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pa_conv = nn.Conv3d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, D, H, W) to itself."""
        return x * self.pa_conv(x).sigmoid()


class Stem(nn.Module):
    """The volume at a quarter of its resolution, as tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            nn.Conv3d(1, width // 2, 3, 2, 1, bias=False),
            nn.BatchNorm3d(width // 2),
            nn.ReLU(),
            nn.Conv3d(width // 2, width, 3, 2, 1, bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(),
            nn.Conv3d(width, width, 1),
        )
        self.pos, self.norm = PixelAttention(width), nn.LayerNorm(width, eps=1e-6)

    def forward(self, image: Tensor) -> Tensor:
        """Return tokens (B, N, C)."""
        return self.norm(to_tokens(self.pos(self.proj(image))))


class Downscale(nn.Module):
    """From one stage's tokens to the next one's, at half the resolution."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(before, after, 3, 2, 1)
        self.pos, self.norm = PixelAttention(after), nn.LayerNorm(after, eps=1e-6)

    def forward(self, tokens: Tensor, side: int) -> Tensor:
        """Return tokens (B, N / 8, C)."""
        return self.norm(to_tokens(self.pos(self.proj(to_volume(tokens, side)))))


class ReducedAttention(nn.Module):
    """Attention to coarser keys, with the values beside it, brought back to full resolution."""

    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads, self.reduction = heads, reduction
        self.q, self.kv, self.proj = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        if reduction > 1:
            self.sr = nn.Conv3d(width, width, reduction + 1, reduction, reduction // 2, groups=width)
            self.sr_norm = nn.LayerNorm(width, eps=1e-6)
        self.up_norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor, side: int) -> Tensor:
        """Map tokens (B, N, C) of a cube to themselves."""
        coarse = x if self.reduction == 1 else self.sr_norm(to_tokens(self.sr(to_volume(x, side))))
        keys, values = self.kv(coarse).chunk(2, dim=-1)
        q, k, v = (split_heads(part, self.heads) for part in (self.q(x), keys, values))
        attended = join_heads(F.scaled_dot_product_attention(q, k, v))
        volume = to_volume(values, side // self.reduction)
        shortcut = F.interpolate(volume, (side,) * 3, mode="trilinear", align_corners=False)
        return self.proj(attended + self.up_norm(to_tokens(shortcut)))


class PyramidBlock(nn.Module):
    """One block of the encoder."""

    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = ReducedAttention(width, heads, reduction)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})

    def forward(self, x: Tensor, side: int) -> Tensor:
        """Map tokens (B, N, C) of a cube to themselves."""
        x = x + self.attn(self.norm1(x), side)
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class PyramidEncoder(nn.Module):
    """A pyramid of four stages."""

    def __init__(self, size: CtSam3DSize) -> None:
        super().__init__()
        self.side = size.image_size // 4
        self.stem = Stem(size.widths[0])
        for n, (before, after) in enumerate(pairwise(size.widths), start=2):
            self.add_module(f"patch_{n}", Downscale(before, after))
        for n in range(STAGES):
            blocks = (PyramidBlock(size.widths[n], size.heads[n], REDUCTIONS[n]) for _ in range(size.depths[n]))
            self.add_module(f"stage{n + 1}", nn.ModuleList(blocks))
            self.add_module(f"channel_mapper{n + 1}", nn.Conv3d(size.widths[n], size.features[n], 1))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the features of all stages, fine to coarse, of (B, 1, S, S, S)."""
        tokens, side, features = self.stem(image), self.side, []
        for n in range(1, STAGES + 1):
            if n > 1:
                tokens, side = self.get_submodule(f"patch_{n}")(tokens, side), side // 2
            for block in self.get_submodule(f"stage{n}").children():
                tokens = block(tokens, side)
            features.append(self.get_submodule(f"channel_mapper{n}")(to_volume(tokens, side)))
        return features


class Spade(nn.Module):
    """Instance norm whose scale and shift depend, voxel by voxel, on the prompts (Park et al., arXiv 1903.07291)."""

    def __init__(self, channels: int, prompt: int, maps: int) -> None:
        super().__init__()
        self.mlp_shared = nn.Sequential(nn.Conv3d(maps, prompt, 3, padding=1), nn.ReLU())
        self.mlp_gamma, self.mlp_beta = (nn.Conv3d(prompt, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor, prompts: Tensor) -> Tensor:
        """Map (B, C, d, d, d) to itself; `prompts` (B, 3, S, S, S) are at full resolution."""
        seen = F.interpolate(prompts, x.shape[2:], mode="trilinear", align_corners=False)
        shared = self.mlp_shared(seen)
        return F.instance_norm(x) * (1 + self.mlp_gamma(shared)) + self.mlp_beta(shared)


class SpadeBlock(nn.Module):
    """A residual block that the prompts steer."""

    def __init__(self, channels: int, prompt: int, maps: int) -> None:
        super().__init__()
        self.conv_0, self.conv_1 = (nn.Conv3d(channels, channels, 3, padding=1) for _ in range(2))
        self.norm_0, self.norm_1 = Spade(channels, prompt, maps), Spade(channels, prompt, maps)

    def forward(self, x: Tensor, prompts: Tensor) -> Tensor:
        """Map (B, C, d, d, d) to itself."""
        y = self.conv_0(F.leaky_relu(self.norm_0(x, prompts), 0.2))
        return x + self.conv_1(F.leaky_relu(self.norm_1(y, prompts), 0.2))


class Upscale(nn.Module):
    """Twice the resolution."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.cna = nn.Sequential(nn.ConvTranspose3d(before, after, 2, 2), LayerNorm3d(after), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, d, d, d) to (B, C', 2d, 2d, 2d)."""
        return self.cna(x)


class SpadeDecoder(nn.Module):
    """From features and prompts to two masks; the first is the single answer."""

    def __init__(self, size: CtSam3DSize) -> None:
        super().__init__()
        skips = (*reversed(size.features[:-1]), 0, 0)
        channels = size.features[-1]
        for n, (after, skip) in enumerate(zip(size.up, skips, strict=True), start=1):
            self.add_module(f"upscale{n}", Upscale(channels, after))
            self.add_module(f"spade{n}", SpadeBlock(channels, size.prompt, size.maps))
            channels = after + skip
        self.mask_prediction_head = nn.Sequential(nn.Conv3d(channels, 2, 3, padding=1))
        self.iou_prediction_head = MLP(channels, size.iou, size.iou, 2)

    def forward(self, features: list[Tensor], prompts: Tensor) -> MaskAnswer:
        """Return logits (B, 2, S, S, S) and predicted IoU (B, 2)."""
        x, skips = features[-1], [*reversed(features[:-1])]
        for n in range(1, 6):
            x = self.get_submodule(f"upscale{n}")(self.get_submodule(f"spade{n}")(x, prompts))
            if skips:
                x = torch.cat([x, skips.pop(0)], dim=1)
        return MaskAnswer(self.mask_prediction_head(x), self.iou_prediction_head(x.mean(dim=(2, 3, 4))))
