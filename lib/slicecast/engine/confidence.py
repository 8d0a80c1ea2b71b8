"""How sure the model is of each slice, and which slice to look at next.

Not calibrated: an order, not a probability. SAM 2's mask logits cannot serve, since it writes -1024
where it lost the object and so seems certain.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from slicecast.engine.tracker import SliceAnswer

JUMP_SHARE = 0.4
"""A change of area between neighbouring slices beyond this share is named as the reason."""

MAX_EXPONENT = 60.0


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A slice worth the annotator's next look.

    Args:
        slice: slice number.
        score: its confidence in [0, 1].
        reason: why, in words.
    """

    slice: int
    score: float
    reason: str


def slice_confidence(answer: SliceAnswer) -> float:
    """Return predicted IoU x probability of presence x agreement of the lanes, in [0, 1].

    For a slice without the object it is the probability of absence x agreement.
    """
    presence = _sigmoid(answer.object_score)
    if not answer.present:
        return (1 - presence) * answer.agreement
    return float(np.clip(answer.predicted_iou, 0, 1)) * presence * answer.agreement


def suggest_slice(name: str, answers: Mapping[int, SliceAnswer]) -> Suggestion | None:
    """Suggest the least sure slice that shows the object and was not prompted; None if there is none."""
    candidates = {n: slice_confidence(a) for n, a in answers.items() if a.present and not a.prompted}
    if not candidates:
        return None
    number = min(candidates, key=lambda n: (candidates[n], n))
    score = candidates[number]
    return Suggestion(number, score, _reason(name, number, answers, score))


def least_sure(suggestions: Iterable[Suggestion | None]) -> Suggestion | None:
    """Return the suggestion of the lowest confidence."""
    return min((s for s in suggestions if s is not None), key=lambda s: s.score, default=None)


def _reason(name: str, number: int, answers: Mapping[int, SliceAnswer], score: float) -> str:
    answer = answers[number]
    jumps = [j for j in (_jump(answers, number, n) for n in (number - 1, number + 1)) if j is not None]
    largest = max(jumps, default=None, key=lambda pair: abs(pair[0]))
    if answer.agreement < 0.8:
        why = f"the passes from both sides agree only to Dice {answer.agreement:.2f}"
    elif largest is not None and abs(largest[0]) > JUMP_SHARE:
        why = f"the area changes by {abs(largest[0]):.0%} next to it"
    elif _sigmoid(answer.object_score) < 0.8:
        why = "the model is not sure that it is there at all"
    else:
        why = "the model expects the outline to be least accurate there"
    return f"confidence of {name} is lowest here ({score:.2f}): {why}"


def _jump(answers: Mapping[int, SliceAnswer], number: int, other: int) -> tuple[float, int] | None:
    if other not in answers:
        return None
    area, next_area = (int((answers[n].logits > 0).sum()) for n in (number, other))
    return (next_area - area) / max(area, next_area, 1), other


def _sigmoid(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-max(-MAX_EXPONENT, min(MAX_EXPONENT, value))))
