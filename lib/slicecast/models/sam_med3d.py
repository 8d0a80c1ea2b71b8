"""The network of SAM-Med3D (Wang et al., arXiv 2310.15161), with the published checkpoints' names of tensors.

Our own implementation; `tests/models/test_sam_med3d.py` checks it against numbers of the published code. Two of its
habits look like slips but were trained with, and are kept: relative positions are added along the wrong axes
(`_relative_bias`), and the image's position code swaps the first two axes (`PromptEncoder.grid_code`).

Axes of volumes: (x, y, z) towards the patient's right ... left, back ... front, feet ... head (RAS), 1.5 mm.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
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

MASK_TOKENS = 4  # One for the single answer, three for the ambiguous ones, which nothing here asks for

DECODER_HEADS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SamMed3DSize:
    """Sizes of the network; the defaults are those of the published weights (100.5 million parameters)."""

    image_size: int = 128  # voxels along each side of the input
    patch_size: int = 16  # voxels along each side of a token
    width: int = 768  # of the image encoder
    depth: int = 12  # of the image encoder
    heads: int = 12  # of the image encoder
    global_blocks: tuple[int, ...] | None = (2, 5, 8, 11)  # encoder blocks without padding; None for all
    window: int = 14  # the other blocks pad the grid of tokens to this many along each side
    channels: int = 384  # of the embedding and the decoder; a multiple of 24
    mlp: int = 2048  # hidden width of the decoder's blocks

    @property
    def grid(self) -> int:
        """Tokens along each side."""
        return self.image_size // self.patch_size

    def block_grid(self, number: int) -> int:
        """Tokens along each side that an encoder block attends to, padding included."""
        everywhere = self.global_blocks is None or number in self.global_blocks
        return self.grid if everywhere else max(self.grid, self.window)


class SamMed3D(nn.Module):
    """SAM-Med3D: a ViT over 3D patches, prompts as tokens, a two-way transformer.

    Args:
        size: of its parts.
    """

    def __init__(self, size: SamMed3DSize | None = None) -> None:
        super().__init__()
        self.size = size or SamMed3DSize()
        self.image_encoder = VitEncoder(self.size)
        self.prompt_encoder = PromptEncoder(self.size)
        self.mask_decoder = TwoWayDecoder(self.size)

    @property
    def side(self) -> int:
        """Voxels along each side of the input."""
        return self.size.image_size

    @property
    def mask_size(self) -> int:
        """Voxels along each side of a mask; four for each token."""
        return 4 * self.size.grid

    def encode(self, image: Tensor) -> Tensor:
        """Return the embedding (B, C, g, g, g) of a normalised volume (B, 1, S, S, S)."""
        return self.image_encoder(image)

    def decode(self, embedding: Tensor, points: Tensor, labels: Tensor, previous: Tensor | None) -> MaskAnswer:
        """Return the single mask, logits (B, 1, m, m, m), and its predicted IoU (B, 1).

        Args:
            embedding: (B, C, g, g, g).
            points: (B, P, 3) voxels in the order of the volume's axes; may be empty where `previous` is given.
            labels: (B, P), 1 positive, 0 negative.
            previous: (B, 1, m, m, m) raw logits of the answer before; zeros at the first click; None for no mask.
        """
        sparse, dense = self.prompt_encoder(points, labels, previous)
        answer = self.mask_decoder(embedding, self.prompt_encoder.grid_code(), sparse, dense)
        return MaskAnswer(answer.logits[:, :1], answer.iou[:, :1])

    def segment(
        self, image: Tensor, embedding: Tensor, points: Tensor, positive: Tensor, previous: Tensor | None
    ) -> ClickStep:
        """Answer all clicks so far; see `PromptableVolume`. Every step is fed raw logits, the first one zeros."""
        if previous is None:
            previous = embedding.new_zeros(len(embedding), 1, *(self.mask_size,) * 3)
        answer = self.decode(embedding, points, positive.long(), previous)
        fine = F.interpolate(answer.logits, image.shape[2:], mode="trilinear", align_corners=False)
        return ClickStep(fine, answer.logits, answer.iou)


class VitEncoder(nn.Module):
    """A ViT with relative positions; (B, 1, S, S, S) to (B, C, g, g, g)."""

    def __init__(self, size: SamMed3DSize) -> None:
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv3d(1, size.width, size.patch_size, size.patch_size)})
        self.pos_embed = nn.Parameter(torch.zeros(1, size.grid, size.grid, size.grid, size.width))
        self.blocks = nn.ModuleList(VitBlock(size, size.block_grid(n)) for n in range(size.depth))
        self.neck = nn.Sequential(
            nn.Conv3d(size.width, size.channels, 1, bias=False),
            LayerNorm3d(size.channels),
            nn.Conv3d(size.channels, size.channels, 3, padding=1, bias=False),
            LayerNorm3d(size.channels),
        )
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, image: Tensor) -> Tensor:
        """Return the embedding."""
        x = self.patch_embed["proj"](image).movedim(1, -1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.neck(x.movedim(-1, 1))


class TransformerMLP(nn.Module):
    """Two linear layers with an activation between."""

    def __init__(self, width: int, hidden: int, activation: nn.Module) -> None:
        super().__init__()
        self.lin1, self.lin2, self.activation = nn.Linear(width, hidden), nn.Linear(hidden, width), activation

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., width) to itself."""
        return self.lin2(self.activation(self.lin1(x)))


class VitBlock(nn.Module):
    """One block of the encoder.

    Args:
        grid: tokens along each side that are attended to. A smaller volume is padded with zeros after the first norm;
            the padding takes part in attention, as in the published code.
    """

    def __init__(self, size: SamMed3DSize, grid: int) -> None:
        super().__init__()
        self.grid = grid
        self.norm1, self.norm2 = nn.LayerNorm(size.width, eps=1e-6), nn.LayerNorm(size.width, eps=1e-6)
        self.attn = GridAttention(size.width, size.heads, grid)
        self.mlp = TransformerMLP(size.width, 4 * size.width, nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, g, g, g, width) to itself."""
        side = x.shape[1]
        padded = F.pad(self.norm1(x), (0, 0) + (0, self.grid - side) * 3)
        x = x + self.attn(padded)[:, :side, :side, :side]
        return x + self.mlp(self.norm2(x))


class GridAttention(nn.Module):
    """Self-attention over a cube of tokens with decomposed relative positions."""

    def __init__(self, width: int, heads: int, grid: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        tables = (nn.Parameter(torch.zeros(2 * grid - 1, width // heads)) for _ in range(3))
        self.rel_pos_d, self.rel_pos_h, self.rel_pos_w = tables

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, n, n, n, width) to itself."""
        sides = x.shape[1:4]
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x.flatten(1, 3)).chunk(3, dim=-1))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=self._relative_bias(q.unflatten(2, sides)))
        return self.proj(join_heads(out)).unflatten(1, sides)

    def _relative_bias(self, q: Tensor) -> Tensor:
        """Return what is added to the scores, (B, heads, N, N).

        The published code adds the second and third term along the wrong axes: the query's third coordinate does not
        enter them, and the fourth axis is always the key's third. The weights were trained so.
        """
        n = q.shape[2]
        rows = torch.arange(n, device=q.device)
        apart = rows[:, None] - rows[None, :] + n - 1
        along_d = torch.einsum("bxdhwc,dkc->bxdhwk", q, self.rel_pos_d[apart])
        along_h = torch.einsum("bxdhwc,hkc->bxdhwk", q, self.rel_pos_h[apart])
        along_w = torch.einsum("bxdhwc,wkc->bxdhwk", q, self.rel_pos_w[apart])
        bias = along_d[..., None, None, :] + along_h[:, :, :, :, None, :, None, :]
        bias = bias + along_w[:, :, :, :, None, None, :, :]
        return bias.flatten(5).flatten(2, 4)


class FourierCode(nn.Module):
    """Positions as waves of random directions."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(3, channels // 3))

    def forward(self, coordinates: Tensor) -> Tensor:
        """Return (..., C) of coordinates (..., 3) in [0, 1]: sine, cosine, and the sine again."""
        angles = 2 * math.pi * ((2 * coordinates - 1) @ self.positional_encoding_gaussian_matrix)
        return torch.cat([angles.sin(), angles.cos(), angles.sin()], dim=-1)


class PromptEncoder(nn.Module):
    """Clicks as tokens, a previous mask as a map that is added to the embedding."""

    def __init__(self, size: SamMed3DSize) -> None:
        super().__init__()
        self.image_size, self.grid = size.image_size, size.grid
        self.pe_layer = FourierCode(size.channels)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, size.channels) for _ in range(2))
        self.not_a_point_embed = nn.Embedding(1, size.channels)
        self.no_mask_embed = nn.Embedding(1, size.channels)
        self.mask_downscaling = nn.Sequential(
            nn.Conv3d(1, 4, 2, 2),
            LayerNorm3d(4),
            nn.GELU(),
            nn.Conv3d(4, 16, 2, 2),
            LayerNorm3d(16),
            nn.GELU(),
            nn.Conv3d(16, size.channels, 1),
        )

    def forward(self, points: Tensor, labels: Tensor, previous: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return tokens (B, P + 1, C), none where there are no points, and the dense prompt (B, C, g, g, g)."""
        if previous is None:
            dense = self.no_mask_embed.weight[:, :, None, None, None].expand(
                points.shape[0], -1, self.grid, self.grid, self.grid
            )
        else:
            dense = self.mask_downscaling(previous)
        return self._tokens(points, labels), dense

    def _tokens(self, points: Tensor, labels: Tensor) -> Tensor:
        negative, positive = (embedding(torch.zeros_like(labels)) for embedding in self.point_embeddings)
        code = self.pe_layer((points.to(negative.dtype) + 0.5) / self.image_size)
        tokens = code + torch.where(labels[..., None] == 1, positive, negative)
        ending = self.not_a_point_embed.weight[None].expand(len(points), -1, -1)
        return torch.cat([tokens, ending], dim=1) if points.shape[1] else tokens

    def grid_code(self) -> Tensor:
        """Return the position code of the embedding's cells, (1, C, g, g, g); first and second axis are swapped."""
        like = self.no_mask_embed.weight
        centres = (torch.arange(self.grid, device=like.device, dtype=like.dtype) + 0.5) / self.grid
        first, second, third = torch.meshgrid(centres, centres, centres, indexing="ij")
        return self.pe_layer(torch.stack([second, first, third], dim=-1)).movedim(-1, 0)[None]


class Attention(nn.Module):
    """Attention of the decoder, in fewer channels where asked."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(channels, inner) for _ in range(3))
        self.out_proj = nn.Linear(inner, channels)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return (B, Nq, C)."""
        parts = zip((self.q_proj, self.k_proj, self.v_proj), (q, k, v), strict=True)
        q, k, v = (split_heads(proj(x), DECODER_HEADS) for proj, x in parts)
        return self.out_proj(join_heads(F.scaled_dot_product_attention(q, k, v)))


class TwoWayBlock(nn.Module):
    """Tokens attend to themselves and to the image, the image to the tokens."""

    def __init__(self, channels: int, mlp: int, *, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = Attention(channels, channels)
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.LayerNorm(channels) for _ in range(4))
        self.cross_attn_token_to_image = Attention(channels, channels // 2)
        self.mlp = TransformerMLP(channels, mlp, nn.ReLU())
        self.cross_attn_image_to_token = Attention(channels, channels // 2)

    def forward(self, q: Tensor, k: Tensor, q_code: Tensor, k_code: Tensor) -> tuple[Tensor, Tensor]:
        """Map tokens (B, T, C) and image (B, N, C), given their position codes."""
        q = self.self_attn(q, q, q) if self.first else q + self.self_attn(q + q_code, q + q_code, q)
        q = self.norm1(q)
        q = self.norm2(q + self.cross_attn_token_to_image(q + q_code, k + k_code, k))
        q = self.norm3(q + self.mlp(q))
        return q, self.norm4(k + self.cross_attn_image_to_token(k + k_code, q + q_code, q))


class TwoWayTransformer(nn.Module):
    """Two blocks, and a last look of the tokens at the image."""

    def __init__(self, channels: int, mlp: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(channels, mlp, first=n == 0) for n in range(2))
        self.final_attn_token_to_image = Attention(channels, channels // 2)
        self.norm_final_attn = nn.LayerNorm(channels)

    def forward(self, tokens: Tensor, image: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        """Map tokens (B, T, C) and image (B, N, C); `code` (1, N, C) tells the image's positions."""
        q, k = tokens, image
        for layer in self.layers:
            q, k = layer(q, k, tokens, code)
        return self.norm_final_attn(q + self.final_attn_token_to_image(q + tokens, k + code, k)), k


class TwoWayDecoder(nn.Module):
    """From embedding and prompts to masks."""

    def __init__(self, size: SamMed3DSize) -> None:
        super().__init__()
        c = size.channels
        self.transformer = TwoWayTransformer(c, size.mlp)
        self.iou_token, self.mask_tokens = nn.Embedding(1, c), nn.Embedding(MASK_TOKENS, c)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose3d(c, c // 4, 2, 2),
            LayerNorm3d(c // 4),
            nn.GELU(),
            nn.ConvTranspose3d(c // 4, c // 8, 2, 2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(MLP(c, c, c, c // 8) for _ in range(MASK_TOKENS))
        self.iou_prediction_head = MLP(c, 256, 256, MASK_TOKENS)

    def forward(self, embedding: Tensor, code: Tensor, sparse: Tensor, dense: Tensor) -> MaskAnswer:
        """Return all masks, logits (B, 4, m, m, m), and their predicted IoU (B, 4)."""
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([own.expand(len(sparse), -1, -1), sparse], dim=1)
        q, k = self.transformer(tokens, to_tokens(embedding + dense), to_tokens(code))
        up = self.output_upscaling(to_volume(k, embedding.shape[2:]))
        heads = [mlp(q[:, 1 + n]) for n, mlp in enumerate(self.output_hypernetworks_mlps)]
        logits = torch.einsum("bmc,bcdhw->bmdhw", torch.stack(heads, dim=1), up)
        return MaskAnswer(logits, self.iou_prediction_head(q[:, 0]))
