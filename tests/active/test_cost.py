"""How long a volume takes."""

import numpy as np
import pytest

from slicecast.active.cost import learn_cost


def timed(count, *, seed=0):
    rng = np.random.default_rng(seed)
    rows = [{"disagree": d, "object_entropy": o, "confidence": c} for d, o, c in rng.random((count, 3))]
    return [(scores, float(60 * np.exp(1.5 * scores["disagree"]))) for scores in rows]


def test_nine_are_too_few():
    assert learn_cost(timed(9)) is None


def test_it_learns_what_takes_long():
    model = learn_cost(timed(40))
    easy, hard = ({"disagree": d, "object_entropy": 0.5, "confidence": 0.5} for d in (0.1, 0.9))
    assert model.seconds(hard) / model.seconds(easy) == pytest.approx(np.exp(1.2), rel=0.15)
    assert model.seconds({"disagree": 0.5}) is None
