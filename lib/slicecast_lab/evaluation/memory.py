"""Does a network use SAM 2's memory? Where its attention goes, and what its answers lose without what they rest on.

Training can go wrong unseen: a network that only nudges the last mask, which is carried beside the memory, follows
an object for some slices and scores well, but never finds it again. So this report is read before weights are shipped.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from slicecast.inference.segment import SegmentService
from slicecast.models.registry import ModelSpec
from slicecast.models.sam2 import Sam2Predictor, load_predictor
from slicecast.training.objective import Batch, iou
from slicecast.training.propagation import MASK, Group, Plan, Prediction, full_size, propagate
from slicecast.volume.metrics import dice
from slicecast_lab.evaluation.cases import CaseFiles, TruthCase, read_case
from slicecast_lab.evaluation.prompts import pick_slice, play
from slicecast_lab.evaluation.settings import Settings, parse_prompt

Network = Any  # A `sam2.modeling.sam2_base.SAM2Base`; only `slicecast.models` may import that name

TARGETS = ("prompted slice", "later slices", "pointers")
"""What attention may go to: the map of the slice that was prompted, of those tracked since, object pointers."""

DISTANCES = ((1, 1), (2, 2), (3, 4), (5, 7), (8, 12), (13, 30), (31, 999))
"""Slices from the prompted one, from and to, that are reported together."""


@dataclass(frozen=True, slots=True)
class Ablation:
    """What a network goes without."""

    maps: bool = False  # all memory maps are zero
    pointers: bool = False  # all object pointers are zero
    carry: bool = False  # the previous mask is withheld


ABLATIONS: Mapping[str, Ablation] = {
    "nothing": Ablation(),
    "memory maps": Ablation(maps=True),
    "pointers": Ablation(pointers=True),
    "previous mask": Ablation(carry=True),
    "maps and previous mask": Ablation(maps=True, carry=True),
}
"""By what is taken away."""


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """What a network's answers rest on, from a mask on the first slice."""

    # share of the cross-attention that each of TARGETS gets, mean over layers, slices and positions
    attention: Mapping[str, float]
    without: Mapping[str, float]  # mean score on tracked slices that show the object, by what was taken away
    # (first, last distance in slices, score, slices), with nothing taken away
    by_distance: tuple[tuple[int, int, float, int], ...]

    @property
    def memory_worth(self) -> float:
        """What zeroing the memory maps costs."""
        return self.without["nothing"] - self.without["memory maps"]


def memory_report(model: Network, batches: Sequence[Batch], *, carry: bool) -> MemoryReport:
    """Report on generated clips; scores are IoU.

    Args:
        carry: whether the product hands the previous mask on with these weights.
    """
    with attention_watched(model) as seen:
        whole = _scores(model, batches, Plan(withheld=not carry))
    without = {
        name: whole if name == "nothing" else _ablated(model, batches, a, carry) for name, a in ABLATIONS.items()
    }
    values = {name: float(np.mean([v for _, v in scores])) for name, scores in without.items()}
    return MemoryReport(mean_attention(seen), values, grouped_by_distance(whole))


def _ablated(model: Network, batches: Sequence[Batch], ablation: Ablation, carry: bool) -> list[tuple[int, float]]:
    with silenced(model, ablation):
        return _scores(model, batches, Plan(withheld=ablation.carry or not carry))


@torch.no_grad()
def _scores(model: Network, batches: Sequence[Batch], plan: Plan) -> list[tuple[int, float]]:
    """Return (distance, IoU) of every tracked slice that shows its object."""
    out: list[tuple[int, float]] = []
    for batch in batches:
        group = Group(MASK, batch.frames, batch.masks)
        predictions = propagate(model, batch.images, [group], rng=np.random.default_rng(0), by_truth=False, plan=plan)
        out += [pair for p in predictions if p.time > 0 for pair in _slice_scores(p)]
    return out


def _slice_scores(p: Prediction) -> Iterator[tuple[int, float]]:
    present = p.truth.flatten(1).any(dim=1)
    masks = full_size(p.step.logits[present, 0].float(), p.truth.shape[-1]) > 0
    for value in iou(masks[:, None], p.truth[present][:, None])[:, 0].tolist():
        yield p.time, value


def grouped_by_distance(scores: Sequence[tuple[int, float]]) -> tuple[tuple[int, int, float, int], ...]:
    """Return the mean score of each of DISTANCES that occurs."""
    groups = [(a, b, [v for d, v in scores if a <= d <= b]) for a, b in DISTANCES]
    return tuple((a, b, float(np.mean(values)), len(values)) for a, b, values in groups if values)


@contextmanager
def silenced(model: Network, ablation: Ablation) -> Iterator[None]:
    """Zero a network's memory maps or pointers for a while; that there were so many stays known."""

    def hook(_module: nn.Module, args: tuple, given: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        memory: Tensor = given["memory"]
        kept = memory.shape[0] - given["num_obj_ptr_tokens"]
        scale = memory.new_ones(memory.shape[0], 1, 1)
        scale[:kept] = float(not ablation.maps)
        scale[kept:] = float(not ablation.pointers)
        return args, {**given, "memory": memory * scale}

    handle = model.memory_attention.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def attention_watched(model: Network) -> Iterator[list[Tensor]]:
    """Collect where each cross-attention looks, (3,) shares of TARGETS a call; a track's anchor is its first map."""
    seen: list[Tensor] = []

    def hook(module: nn.Module, _args: tuple, given: dict[str, Any], _out: Tensor) -> None:
        seen.append(_shares(module, **given))

    with ExitStack() as stack:
        for layer in model.memory_attention.layers:
            handle = layer.cross_attn_image.register_forward_hook(hook, with_kwargs=True)
            stack.callback(handle.remove)
        yield seen


def _shares(attention: Any, q: Tensor, k: Tensor, v: Tensor, num_k_exclude_rope: int = 0) -> Tensor:
    """Return the shares by asking SAM 2's own attention for the values "I belong to this target"."""
    kept = v.shape[1] - num_k_exclude_rope
    target = torch.full((v.shape[1],), TARGETS.index("later slices"), device=v.device)
    target[: q.shape[1]], target[kept:] = TARGETS.index("prompted slice"), TARGETS.index("pointers")
    belongs = nn.functional.one_hot(target, len(TARGETS)).to(v.dtype).repeat(1, attention.num_heads)
    # A copy without projections of the values; its forward is called past the hooks.
    bare = copy(attention)
    bare._modules = {**attention._modules, "v_proj": nn.Identity(), "out_proj": nn.Identity()}
    values = belongs.expand(len(v), -1, -1)
    out = type(attention).forward(bare, q, k, values, num_k_exclude_rope=num_k_exclude_rope)
    return out.reshape(-1, len(TARGETS)).mean(dim=0)


def mean_attention(seen: Sequence[Tensor]) -> dict[str, float]:
    """Return the mean share of each target."""
    return dict(zip(TARGETS, torch.stack(tuple(seen)).mean(dim=0).tolist(), strict=True))


def case_report(spec: ModelSpec, cases: Sequence[CaseFiles], prompt: str = "mask") -> MemoryReport:
    """Report on scans, in the product; scores are Dice, over volumes and by slice.

    Args:
        prompt: ``mask``, ``box`` or ``clicks:N``, on the slice where the object is largest.
    """
    kind, clicks = parse_prompt(prompt)
    settings = Settings(prompt=kind, clicks=clicks)
    with_mask, without_mask = (load_predictor(replace(spec, carry=carry), flat=False) for carry in (spec.carry, False))
    with attention_watched(with_mask.network) as seen:
        whole = [_answer(with_mask, read_case(files), settings) for files in cases]
    without = {}
    for name, ablation in ABLATIONS.items():
        predictor = without_mask if ablation.carry else with_mask
        with silenced(predictor.network, ablation):
            dices = [_answer(predictor, read_case(files), settings)[0] for files in cases]
        without[name] = float(np.mean(dices))
    scores = [pair for _, slices in whole for pair in slices]
    return MemoryReport(mean_attention(seen), without, grouped_by_distance(scores))


def _answer(predictor: Sam2Predictor, case: TruthCase, settings: Settings) -> tuple[float, list[tuple[int, float]]]:
    """Return the Dice over a volume, and (distance, Dice) of each other slice that shows the object."""
    start = pick_slice(case, "largest")
    answer = play(case, SegmentService(predictor=predictor), settings, start)[-1]
    found, truth = case.slices(answer.mask), case.slices(case.truth)
    shown = [int(n) for n in np.flatnonzero(case.areas) if n != start]
    return answer.dice, [(abs(n - start), dice(found.slice(n), truth.slice(n))) for n in shown]
