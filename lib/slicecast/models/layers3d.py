"""Layers that both volumetric networks share; arrays are (B, C, D, H, W), tokens (B, N, C)."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

from torch import Tensor, nn


class MaskAnswer(NamedTuple):
    """What a decoder answers: mask logits (B, M, m, m, m) and their predicted IoU (B, M)."""

    logits: Tensor
    iou: Tensor


class ClickStep(NamedTuple):
    """The answer to the clicks so far.

    Args:
        logits: (B, 1, S, S, S) at the input's resolution.
        previous: what the next step is fed, in the network's own form.
        iou: (B, 1), as predicted.
    """

    logits: Tensor
    previous: Tensor
    iou: Tensor


class PromptableVolume(Protocol):
    """What training and inference ask of a volumetric network, an `nn.Module`."""

    @property
    def side(self) -> int:
        """Voxels S along each side of its input."""
        ...

    def encode(self, image: Tensor) -> Tensor:
        """Encode a normalised volume (B, 1, S, S, S) once for all clicks."""
        ...

    def segment(
        self, image: Tensor, embedding: Tensor, points: Tensor, positive: Tensor, previous: Tensor | None
    ) -> ClickStep:
        """Answer all clicks so far.

        Args:
            image: (B, 1, S, S, S), as it was encoded.
            embedding: of `encode`.
            points: (B, P, 3) voxels in the order of the volume's axes.
            positive: (B, P) bool.
            previous: of the step before; None at the first click.
        """
        ...


class LayerNorm3d(nn.LayerNorm):
    """Layer norm over the channels of every voxel."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, D, H, W)."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class MLP(nn.Module):
    """Linear layers with ReLU between them.

    Args:
        widths: of the input, the hidden layers and the output.
    """

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., first) to (..., last)."""
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)


def to_tokens(x: Tensor) -> Tensor:
    """Return (B, C, D, H, W) as tokens (B, D*H*W, C)."""
    return x.flatten(2).transpose(1, 2)


def to_volume(tokens: Tensor, side: int | Sequence[int]) -> Tensor:
    """Return tokens (B, N, C) as (B, C, D, H, W); `side` is one for a cube."""
    sides = (side,) * 3 if isinstance(side, int) else tuple(side)
    return tokens.transpose(1, 2).unflatten(2, sides)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Return (B, N, C) as (B, heads, N, C / heads)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """Return (B, heads, N, c) as (B, N, heads * c)."""
    return x.transpose(1, 2).flatten(2)
