"""SAM 2's encoder and its step on a tracked slice as modules without branches: for PyTorch, and to be compiled.

The step has a fixed number of places for memories. Those that a track does not have are masked out of the attention, so
that tracks with unlike memories share a batch. For networks whose memory attention sees no object pointers.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from sam2.modeling.memory_attention import MemoryAttentionLayer
from sam2.modeling.sam.transformer import RoPEAttention
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from slicecast.engine.ports import Bank
from slicecast.models import sam2_forward as steps
from slicecast.models.sam2_build import SpatialMemoryAttention
from slicecast.models.sam2_forward import Features, Memory, Step

ANCHORS = 2  # Places for anchors: a track's own, and the one ahead
MOST_GROWTH = 1.25  # Of a mask's area by a bias: a mask that lacks a fifth of the object becomes whole
ABSENT_LOGIT = -1e9  # Added to the attention to a place without a memory: its share is exactly 0


class EncodeGraph(nn.Module):
    """The encoder, as :func:`slicecast.models.sam2_forward.encode`."""

    def __init__(self, model: SAM2Base) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Encode slices (B, S, S) into three maps, finest first."""
        return steps.encode(self.model, frames).maps


class TrackGraph(nn.Module):
    """A tracked slice: attention to memory, mask, and what the slice leaves in memory."""

    here: Tensor
    there: Tensor
    when: Tensor

    def __init__(self, model: SAM2Base) -> None:
        super().__init__()
        self.model = model
        self.places = ANCHORS + model.num_maskmem - 1
        side = model.sam_image_embedding_size
        layers = model.memory_attention.layers
        self.layers = nn.ModuleList(_FlatLayer(layer, tokens=side * side) for layer in layers)
        here = model.image_encoder.neck.position_encoding(torch.zeros(1, 1, side, side))
        there = model.memory_encoder.position_encoding(torch.zeros(1, 1, side, side))
        self.register_buffer("here", here.flatten(2).transpose(1, 2).float(), persistent=False)
        self.register_buffer("there", there.flatten(2).transpose(1, 2).float(), persistent=False)
        self.register_buffer("when", model.maskmem_tpos_enc.detach()[:, 0], persistent=False)

    @staticmethod
    def suits(model: SAM2Base) -> bool:
        """Tell whether the network is one that this computes: of the bundled model's kind, on the CPU."""
        attention = model.memory_attention
        return (
            isinstance(attention, SpatialMemoryAttention)
            and attention.pos_enc_at_input
            and all(_FlatLayer.suits(layer) for layer in attention.layers)
            and model.memory_temporal_stride_for_eval == 1
            and model.max_cond_frames_in_attn == -1
            and model.use_high_res_features_in_sam
            and model.device.type == "cpu"
        )

    def forward(
        self,
        fine: Tensor,
        middle: Tensor,
        coarse: Tensor,
        memory: Tensor,
        age: Tensor,
        absent: Tensor,
        prior: Tensor,
        bias: Tensor,
    ) -> tuple[Tensor, ...]:
        """Return the parts of :func:`outputs_of`.

        Args:
            fine, middle, coarse: the slices' maps.
            memory: (B, K, D, t, t) float32.
            age: (B, K) int64, slices since a memory was made, less one; `num_maskmem` - 1 for anchors.
            absent: (B, K) float32, 1 where there is no memory.
            prior, bias: (B, S, S) and (B,) float32 logits, added as :func:`weigh` says.
        """
        fused = self.fuse(coarse, memory, age, absent)
        outputs = self.model._forward_sam_heads(
            backbone_features=fused,
            high_res_features=[fine, middle],
            multimask_output=self.model._use_multimask(False, None),
        )
        step = weigh(steps._step(outputs), prior, bias)
        left = steps.remember(self.model, Features((fine, middle, coarse)), step, prompted=False)
        return outputs_of(step, left)

    def fuse(self, coarse: Tensor, memory: Tensor, age: Tensor, absent: Tensor) -> Tensor:
        """Return a slice's coarsest map after attention to its track's memories; arguments as for `forward`."""
        value = memory.flatten(3).transpose(2, 3)
        key = (value + self.there + self.when[age]).flatten(1, 2)
        bias = ABSENT_LOGIT * absent[:, :, None].expand(-1, -1, self.here.shape[1]).flatten(1)[:, None]
        out = coarse.flatten(2).transpose(1, 2) + 0.1 * self.here
        for layer in self.layers:
            out = layer(out, key, value.flatten(1, 2), bias)
        return self.model.memory_attention.norm(out).transpose(1, 2).reshape(coarse.shape)

    def memory_of(self, banks: Sequence[Bank]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the inputs `memory`, `age` and `absent` for tracks of at most ANCHORS anchors."""
        model, batch = self.model, len(banks)
        side = model.sam_image_embedding_size
        memory = torch.zeros(batch, self.places, model.mem_dim, side, side)
        age = torch.zeros(batch, self.places, dtype=torch.int64)
        absent = torch.ones(batch, self.places)
        for row, bank in enumerate(banks):
            known = [(model.num_maskmem - 1, left) for _, left in bank.anchors]
            known += [(bank.time - t - 1, left) for t, left in bank.recent if bank.time - t < model.num_maskmem]
            for place, (old, left) in enumerate(known):
                memory[row, place] = left.memory.features[0]
                age[row, place] = old
                absent[row, place] = 0
        return memory, age, absent

    def example(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return inputs for slices with these maps: one memory at random, the other places empty."""
        memory, age, absent = self.memory_of([Bank(())] * len(maps[0]))
        memory[:, 0].normal_()
        absent[:, 0] = 0
        batch, size = len(maps[0]), self.model.image_size
        return *maps, memory, age, absent, torch.zeros(batch, size, size), torch.zeros(batch)


class ClickGraph(nn.Module):
    """A slice clicked on once, alone or upon what a track found there, and what it leaves in memory."""

    def __init__(self, track: TrackGraph) -> None:
        super().__init__()
        self.track = track

    def forward(
        self, fine: Tensor, middle: Tensor, coarse: Tensor, points: Tensor, labels: Tensor, dense: Tensor, *bank: Tensor
    ) -> tuple[Tensor, ...]:
        """Return the parts of :func:`outputs_of`.

        Args:
            points, labels, dense: as :func:`slicecast.models.sam2_forward.prompt_with_points` says.
            bank: the track's `memory`, `age` and `absent`; none for a slice that stands alone.
        """
        model, features = self.track.model, Features((fine, middle, coarse))
        fused = self.track.fuse(coarse, *bank) if bank else steps._fuse(model, features, None, 0, 1)
        step = steps.answer_points(model, features, fused, points, labels, dense, first=not bank)
        return outputs_of(step, steps.remember(model, features, step, prompted=True))


class MaskGraph(nn.Module):
    """A slice whose mask is given, and what it leaves in memory."""

    def __init__(self, model: SAM2Base) -> None:
        super().__init__()
        self.model = model

    def forward(self, fine: Tensor, middle: Tensor, coarse: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """Return the parts of :func:`outputs_of`; ``mask`` is (B, 1, S, S) float 0 or 1."""
        features = Features((fine, middle, coarse))
        step = steps.prompt_with_mask(self.model, features, mask)
        return outputs_of(step, steps.remember(self.model, features, step, prompted=True))


def outputs_of(step: Step, left: Memory) -> tuple[Tensor, ...]:
    """Return logits (B, 1, m, m), predicted IoU (B,), object score (B, 1), pointer (B, C), memory (B, D, t, t)."""
    return step.logits, step.predicted_iou, step.object_score, left.pointer, left.features


def answer_of(outputs: tuple[Tensor, ...]) -> tuple[Step, Memory]:
    """Return what :func:`outputs_of` took apart; the chosen mask is the only candidate."""
    logits, iou, score, pointer, left = outputs
    return Step(logits, iou[:, None], logits, iou, pointer, score), Memory(left, pointer)


def weigh(step: Step, prior: Tensor, bias: Tensor) -> Step:
    """Add priors (B, S, S) and biases (B,) to masks, unless the object is said to be absent.

    Favourable prior counts inside the network's own mask only: it keeps pixels and takes pixels away, but what
    merely looks like the object is not added, or the mask leaks into its surroundings from slice to slice. For the same
    reason a bias makes no mask larger than MOST_GROWTH times.
    """
    prior = F.avg_pool2d(prior[:, None], 4)
    prior = torch.where(step.logits > 0, prior, prior.clamp(max=0))
    present = step.object_score[:, :, None, None] > 0
    logits = step.logits + prior
    return replace(step, logits=torch.where(present, logits + _bounded(bias, logits)[:, None, None, None], step.logits))


def _bounded(bias: Tensor, logits: Tensor) -> Tensor:
    """Return biases (B,), at least 0, lowered to what lets masks (B, 1, m, m) grow as far as they may."""
    ordered = logits.flatten(1).sort(dim=1, descending=True).values
    largest = (MOST_GROWTH * (ordered > 0).sum(dim=1, keepdim=True)).round().long().clamp(1, ordered.shape[1])
    return torch.minimum(bias, -ordered.gather(1, largest - 1)[:, 0]).clamp(min=0)


class _FlatLayer(nn.Module):
    """A layer of the memory attention."""

    def __init__(self, layer: MemoryAttentionLayer, *, tokens: int) -> None:
        super().__init__()
        self.layer = layer
        self.own = _Rotary(layer.self_attn, tokens)
        self.memory = _Rotary(layer.cross_attn_image, tokens)

    @staticmethod
    def suits(layer: MemoryAttentionLayer) -> bool:
        attentions = (layer.self_attn, layer.cross_attn_image)
        where = (layer.pos_enc_at_attn, layer.pos_enc_at_cross_attn_queries, layer.pos_enc_at_cross_attn_keys)
        return where == (False, False, True) and all(
            isinstance(a, RoPEAttention) and a.num_heads == 1 for a in attentions
        )

    def forward(self, out: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        layer = self.layer
        normed = layer.norm1(out)
        out = out + self.own(normed, normed, normed)
        out = out + self.memory(layer.norm2(out), key, value, bias)
        return out + layer.linear2(layer.activation(layer.linear1(layer.norm3(out))))


class _Rotary(nn.Module):
    """Attention of one head with rotary positions, in real numbers.

    With pairs of channels as complex numbers, x e^(ia) = x cos a + i x sin a; the projections also give i x.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, attention: RoPEAttention, tokens: int) -> None:
        super().__init__()
        side = round(tokens**0.5)
        turn = attention.compute_cis(end_x=side, end_y=side).repeat_interleave(2, dim=-1)
        self.register_buffer("cos", turn.real.contiguous(), persistent=False)
        self.register_buffer("sin", turn.imag.contiguous(), persistent=False)
        self.query, self.key = _with_turned(attention.q_proj), _with_turned(attention.k_proj)
        self.value, self.out = attention.v_proj, attention.out_proj

    def forward(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return (B, N, C) from query (B, N, C), and key and value (B, any multiple of N, D)."""
        q, k = self._turn(self.query(query)), self._turn(self.key(key))
        bias = None if bias is None else bias[:, None]
        seen = F.scaled_dot_product_attention(q[:, None], k[:, None], self.value(value)[:, None], bias)
        return self.out(seen[:, 0])

    def _turn(self, doubled: Tensor) -> Tensor:
        straight, turned = doubled.unflatten(1, (-1, self.cos.shape[0])).chunk(2, dim=-1)
        return (straight * self.cos + turned * self.sin).flatten(1, 2)


def _with_turned(projection: nn.Linear) -> nn.Linear:
    """Return a projection to x and i x, where channels (2n, 2n + 1) are the parts of a complex number."""
    both = nn.Linear(projection.in_features, 2 * projection.out_features)
    with torch.no_grad():
        for mine, theirs in zip(both.parameters(), projection.parameters(), strict=True):
            real, imaginary = theirs[0::2], theirs[1::2]
            mine.copy_(torch.cat([theirs, torch.stack([-imaginary, real], dim=1).flatten(0, 1)]))
    return both
