"""SAM 2's steps as plain batched functions, differentiable, shared by inference and training.

Every function takes a :class:`sam2.modeling.sam2_base.SAM2Base` and calls its own building blocks
(Ravi et al., "SAM 2: Segment Anything in Images and Videos", section 4). One batch row is one track:
one object on one slice. A track counts its own time from its anchor (time 0), always forward.

The end stacks jobs of single slices into batches, and takes the answers apart again.

Shapes: S input pixels, m = S/4 mask pixels, t = S/16 tokens a side, C hidden channels, B tracks.

Two inputs that SAM 2 itself has, used here in a new way, off for stock weights:

* *previous_mask*: the previous slice's mask logits enter as SAM's dense prompt on a tracked slice;
* *drawn prompts*: clicks and boxes are drawn into that dense prompt beside their tokens (the idea of
  spatially aligned prompts, CT-SAM3D, arXiv 2403.15063).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from slicecast.engine.ports import Bank, ModelPrompt, Observation, PromptJob
from slicecast.models import sam2_forward as steps

PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)

MASK_PROMPT_LIMIT = 12.0  # Carried logits are clamped to this, so that an overconfident slice can still be corrected
PREVIOUS_LIMIT = 32.0  # The clamp SAM 2's own predictor applies to logits it feeds back together with new clicks

CLICK_RADIUS_MASK_PX = 2.5
CLICK_LOGIT, NO_CLICK_LOGIT = 10.0, -1.0
BOX_INSIDE_LOGIT, BOX_OUTSIDE_LOGIT = 3.0, -6.0

PAD, NEGATIVE, POSITIVE, BOX_TOP_LEFT, BOX_BOTTOM_RIGHT = -1, 0, 1, 2, 3  # SAM's point labels. A box is two points.


@dataclass(frozen=True, slots=True)
class Features:
    """Encoded slices: three maps (B, C/8, 4t, 4t), (B, C/4, 2t, 2t), (B, C, t, t), finest first."""

    maps: tuple[Tensor, ...]

    def tokens(self) -> list[Tensor]:
        """Return each map as SAM 2 wants it: (positions, B, channels)."""
        return [m.flatten(2).permute(2, 0, 1) for m in self.maps]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Return (height, width) of each map."""
        return [(m.shape[-2], m.shape[-1]) for m in self.maps]


@dataclass(frozen=True, slots=True)
class Memory:
    """What one slice leaves for later ones: spatial features (B, 64, t, t) and a pointer (B, C)."""

    features: Tensor
    pointer: Tensor


@dataclass(frozen=True, slots=True)
class BankBatch:
    """A batch of tracks at one track time."""

    anchors: Mapping[int, Memory]  # memory of conditioning slices by track time; the own anchor at 0, others later
    recent: Mapping[int, Memory]  # memory of tracked slices by track time


@dataclass(frozen=True, slots=True)
class Step:
    """Outcome of one slice for a batch of tracks."""

    candidates: Tensor  # (B, M, m, m) float32 logits of the one or three masks
    candidate_ious: Tensor  # (B, M) their predicted IoU
    logits: Tensor  # (B, 1, m, m) float32, the chosen mask
    predicted_iou: Tensor  # (B,) of the chosen mask
    pointer: Tensor  # (B, C) object pointer
    # (B, 1) logit that the object is on the slice. Where it is not positive, SAM 2 sets all mask logits to -1024.
    object_score: Tensor


def prepare_for_training(model: SAM2Base) -> SAM2Base:
    """Switch dropout and the like on, but keep the rules for choosing memory as at inference.

    ``SAM2Base.training`` alone decides that pointers of later anchors are used too; at inference they
    are not, so a network trained with them would meet another input.
    """
    model.train()
    model.training = False
    return model


def encode(model: SAM2Base, frames: Tensor) -> Features:
    """Encode slices.

    Args:
        frames: (B, S, S) float in [0, 1], grey.
    """
    mean = frames.new_tensor(PIXEL_MEAN).view(1, 3, 1, 1)
    std = frames.new_tensor(PIXEL_STD).view(1, 3, 1, 1)
    out = model.forward_image((frames.unsqueeze(1) - mean) / std)
    return Features(tuple(out["backbone_fpn"][-model.num_feature_levels :]))


def image_position(model: SAM2Base, features: Features) -> Tensor:
    """Return the sine position encoding of the coarsest map as (positions, B, C)."""
    top = features.maps[-1]
    encoding = model.image_encoder.neck.position_encoding(top).to(top.dtype)
    return encoding.flatten(2).permute(2, 0, 1)


def draw_prompts(
    points: Tensor, labels: Tensor, *, mask_size: int, image_size: int, previous: Tensor | None = None
) -> Tensor:
    """Draw clicks and boxes into a dense prompt.

    Args:
        points: (B, P, 2) x, y in input pixels; a pixel's centre is an integer.
        labels: (B, P) SAM's point labels; a box's corners adjoin.
        mask_size: m.
        image_size: S.
        previous: (B, 1, m, m) logits to draw over. Default: a flat sheet, or the box.

    Returns:
        (B, 1, m, m) logits.
    """
    batch = points.shape[0]
    scale = mask_size / image_size
    xy = (points + 0.5) * scale - 0.5
    ys, xs = torch.meshgrid(
        torch.arange(mask_size, device=points.device, dtype=points.dtype),
        torch.arange(mask_size, device=points.device, dtype=points.dtype),
        indexing="ij",
    )
    if previous is None:
        sheet = points.new_full((batch, mask_size, mask_size), NO_CLICK_LOGIT)
        sheet = _draw_boxes(sheet, xy, labels, xs, ys)
    else:
        sheet = previous[:, 0].clamp(-MASK_PROMPT_LIMIT, MASK_PROMPT_LIMIT)
    return _draw_clicks(sheet, xy, labels, xs, ys).unsqueeze(1)


def _draw_boxes(sheet: Tensor, xy: Tensor, labels: Tensor, xs: Tensor, ys: Tensor) -> Tensor:
    for p in range(labels.shape[1] - 1):
        is_box = ((labels[:, p] == BOX_TOP_LEFT) & (labels[:, p + 1] == BOX_BOTTOM_RIGHT)).view(-1, 1, 1)
        low, high = xy[:, p], xy[:, p + 1]
        inside = (xs >= low[:, 0].view(-1, 1, 1)) & (xs <= high[:, 0].view(-1, 1, 1))
        inside &= (ys >= low[:, 1].view(-1, 1, 1)) & (ys <= high[:, 1].view(-1, 1, 1))
        drawn = torch.where(inside, BOX_INSIDE_LOGIT, BOX_OUTSIDE_LOGIT).to(sheet.dtype)
        sheet = torch.where(is_box, drawn, sheet)
    return sheet


def _draw_clicks(sheet: Tensor, xy: Tensor, labels: Tensor, xs: Tensor, ys: Tensor) -> Tensor:
    for p in range(labels.shape[1]):
        dx = xs - xy[:, p, 0].view(-1, 1, 1)
        dy = ys - xy[:, p, 1].view(-1, 1, 1)
        disk = dx.square() + dy.square() <= CLICK_RADIUS_MASK_PX**2
        label = labels[:, p].view(-1, 1, 1)
        sheet = torch.where(disk & (label == POSITIVE), CLICK_LOGIT, sheet)
        sheet = torch.where(disk & (label == NEGATIVE), -CLICK_LOGIT, sheet)
    return sheet


def prompt_with_mask(model: SAM2Base, features: Features, mask: Tensor) -> Step:
    """Take a mask as the answer of its slice.

    Args:
        mask: (B, 1, S, S) float 0 or 1.
    """
    outputs = model._use_mask_as_output(features.maps[-1], list(features.maps[:-1]), mask)
    return _step(outputs)


def prompt_with_points(
    model: SAM2Base,
    features: Features,
    points: Tensor,
    labels: Tensor,
    *,
    dense: Tensor | None = None,
    bank: BankBatch | None = None,
    time: int = 0,
    num_slices: int = 16,
) -> Step:
    """Segment a slice from clicks and boxes.

    Args:
        points: (B, P, 2) x, y in input pixels.
        labels: (B, P) int32.
        dense: (B, 1, m, m) logits as a dense prompt: the previous answer, or :func:`draw_prompts`.
        bank: memory, when the slice had been tracked before (a correction). Default: none.
        time: track time of the slice; only used with a bank.
        num_slices: slices of the volume; SAM 2 scales pointer distances by it when it is below 16.
    """
    fused = _fuse(model, features, bank, time, num_slices)
    return answer_points(model, features, fused, points, labels, dense, first=bank is None)


def answer_points(
    model: SAM2Base,
    features: Features,
    fused: Tensor,
    points: Tensor,
    labels: Tensor,
    dense: Tensor | None,
    *,
    first: bool,
) -> Step:
    """Segment a slice from clicks and boxes, its coarsest map fused with memory; ``first`` where there is none."""
    prompts = {"point_coords": points, "point_labels": labels}
    outputs = model._forward_sam_heads(
        backbone_features=fused,
        point_inputs=prompts,
        mask_inputs=dense,
        high_res_features=list(features.maps[:-1]),
        multimask_output=model._use_multimask(first, prompts),
    )
    return _step(outputs)


def track(
    model: SAM2Base,
    features: Features,
    bank: BankBatch,
    *,
    time: int,
    num_slices: int,
    previous_mask: Tensor | None = None,
) -> Step:
    """Segment a slice from memory alone.

    Args:
        previous_mask: (B, 1, m, m) logits of the previous slice as a dense prompt. Default: none (stock SAM 2).
    """
    fused = _fuse(model, features, bank, time, num_slices)
    outputs = model._forward_sam_heads(
        backbone_features=fused,
        point_inputs=None,
        mask_inputs=None if previous_mask is None else previous_mask.clamp(-MASK_PROMPT_LIMIT, MASK_PROMPT_LIMIT),
        high_res_features=list(features.maps[:-1]),
        multimask_output=model._use_multimask(False, None),
    )
    return _step(outputs)


def remember(model: SAM2Base, features: Features, step: Step, *, prompted: bool) -> Memory:
    """Encode a slice's answer into memory.

    Args:
        prompted: the answer came from clicks, a box or a mask (SAM 2 may then binarise it).
    """
    size = (model.image_size, model.image_size)
    high_res = F.interpolate(step.logits, size=size, mode="bilinear", align_corners=False)
    spatial, _ = model._encode_new_memory(
        current_vision_feats=features.tokens(),
        feat_sizes=features.sizes,
        pred_masks_high_res=high_res,
        object_score_logits=step.object_score,
        is_mask_from_pts=prompted,
    )
    return Memory(spatial, step.pointer)


def _fuse(model: SAM2Base, features: Features, bank: BankBatch | None, time: int, num_slices: int) -> Tensor:
    return model._prepare_memory_conditioned_features(
        frame_idx=time,
        is_init_cond_frame=bank is None,
        current_vision_feats=features.tokens()[-1:],
        current_vision_pos_embeds=[image_position(model, features)],
        feat_sizes=features.sizes[-1:],
        output_dict=_output_dict(model, bank),
        num_frames=num_slices,
    )


def _output_dict(model: SAM2Base, bank: BankBatch | None) -> dict[str, dict[int, dict]]:
    if bank is None:
        return {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    return {
        "cond_frame_outputs": {t: _entry(model, m) for t, m in bank.anchors.items()},
        "non_cond_frame_outputs": {t: _entry(model, m) for t, m in bank.recent.items()},
    }


def _entry(model: SAM2Base, memory: Memory) -> dict:
    position = model.memory_encoder.position_encoding(memory.features).to(memory.pointer.dtype)
    return {"maskmem_features": memory.features, "maskmem_pos_enc": [position], "obj_ptr": memory.pointer}


def _step(outputs: Sequence[Tensor]) -> Step:
    candidates, _, ious, logits, _, pointer, score = outputs
    return Step(
        candidates=candidates,
        candidate_ious=ious,
        logits=logits,
        predicted_iou=ious.amax(dim=1),
        pointer=pointer,
        object_score=score,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """One encoded slice, on the model's device."""

    features: Features

    @property
    def nbytes(self) -> int:
        return sum(m.numel() * m.element_size() for m in self.features.maps)


@dataclass(frozen=True, slots=True, eq=False)
class Remembered:
    """What one slice leaves: SAM 2's memory, and its logits for the previous-mask prompt."""

    memory: Memory
    logits: torch.Tensor

    @property
    def nbytes(self) -> int:
        # On the CPU the logits are the observation's own.
        held = (self.memory.features, self.memory.pointer, *((self.logits,) if self.logits.is_cuda else ()))
        return sum(m.numel() * m.element_size() for m in held)


def stack_features(embeddings: Sequence[Encoded]) -> Features:
    """Join encoded slices to one batch."""
    levels = zip(*(e.features.maps for e in embeddings), strict=True)
    return Features(tuple(torch.cat(level) for level in levels))


def stack_banks(banks: Sequence[Bank]) -> steps.BankBatch:
    """Stack banks of equal signature, entry by entry."""
    anchors, recent = [bank.anchors for bank in banks], [bank.recent for bank in banks]
    return steps.BankBatch(_stack_entries(anchors), _stack_entries(recent))


def _stack_entries(rows: Sequence[tuple[tuple[int, Remembered], ...]]) -> dict[int, Memory]:
    stacked = {}
    for column in zip(*rows, strict=True):
        memories = [remembered.memory for _, remembered in column]
        stacked[column[0][0]] = Memory(
            torch.cat([m.features for m in memories]), torch.cat([m.pointer for m in memories])
        )
    return stacked


def bank_signature(bank: Bank) -> tuple:
    """Return what banks of one batch have in common."""
    return tuple(t for t, _ in bank.anchors), tuple(t for t, _ in bank.recent), bank.time


def prompt_signature(job: PromptJob) -> tuple:
    """Return what prompts of one batch have in common."""
    prompt = job.prompt
    if prompt.mask is not None:
        return ("mask",)
    bank = bank_signature(job.bank) if job.bank is not None else ()
    return "points", len(prompt.labels), prompt.box_xyxy is not None, job.previous is not None, bank


def previous_answers(batch: Sequence[PromptJob], device: torch.device) -> torch.Tensor | None:
    """Return (B, 1, m, m) answers to correct; None for a batch without."""
    given = [job.previous for job in batch if job.previous is not None]  # all of a batch, or none
    return torch.from_numpy(np.stack(given))[:, None].to(device) if given else None


def last_logits(banks: Sequence[Bank]) -> torch.Tensor:
    """Return (B, 1, m, m) logits of the slices tracked last."""
    return torch.cat([bank.last.logits for bank in banks])


def stack_points(prompts: Sequence[ModelPrompt], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (B, P, 2) points and (B, P) labels; a box comes first, as two points."""
    coordinates, labels = [], []
    for prompt in prompts:
        xy, kind = prompt.points_xy, prompt.labels
        if prompt.box_xyxy is not None:
            xy = np.concatenate([prompt.box_xyxy.reshape(2, 2), xy])
            kind = np.concatenate([[steps.BOX_TOP_LEFT, steps.BOX_BOTTOM_RIGHT], kind])
        coordinates.append(np.asarray(xy, dtype=np.float32))
        labels.append(np.asarray(kind, dtype=np.int32))
    return torch.from_numpy(np.stack(coordinates)).to(device), torch.from_numpy(np.stack(labels)).to(device)


def observations(step: Step, memory: Memory) -> list[Observation]:
    """Take a batch's answer apart; a view of it would keep all of it alive for as long as one row is remembered."""
    logits = _rows(step.logits.float())
    pointers = _rows(memory.pointer)
    ious = step.predicted_iou.float().cpu().numpy()
    scores = step.object_score[:, 0].float().cpu().numpy()
    # SAM 2's own predictor keeps memory in bf16: equal results, half the space.
    spatial = _rows(memory.features.to(torch.bfloat16))
    return [
        Observation(
            logits=row[0, 0].cpu().numpy(),
            predicted_iou=float(ious[n]),
            object_score=float(scores[n]),
            memory=Remembered(Memory(spatial[n], pointers[n]), row),
        )
        for n, row in enumerate(logits)
    ]


def _rows(batch: torch.Tensor) -> list[torch.Tensor]:
    """Return each row (1, ...) of a batch as a tensor of its own."""
    return [row.clone() for row in batch.split(1)] if len(batch) > 1 else [batch]
