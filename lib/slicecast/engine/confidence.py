"""How sure the model is of each slice: an order, not a probability.

SAM 2's mask logits cannot serve, since it writes -1024 where it lost the object and so seems certain. What the
numbers are worth is learnt from submitted labels (`active/calibration`).
"""

import math

import numpy as np

from slicecast.engine.tracker import SliceAnswer

MAX_EXPONENT = 60.0


def slice_confidence(answer: SliceAnswer) -> float:
    """Return predicted IoU x probability of presence x agreement of the lanes, in [0, 1].

    For a slice without the object it is the probability of absence x agreement.
    """
    presence = probability_of_presence(answer)
    if not answer.present:
        return (1 - presence) * answer.agreement
    return float(np.clip(answer.predicted_iou, 0, 1)) * presence * answer.agreement


def probability_of_presence(answer: SliceAnswer) -> float:
    """Return the model's own probability that the object is on the slice."""
    return 1.0 / (1.0 + math.exp(-max(-MAX_EXPONENT, min(MAX_EXPONENT, answer.object_score))))
