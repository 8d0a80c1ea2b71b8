"""With real networks: after any edits, the incremental result is the one of a run from the beginning."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tracking import PLAIN, absent, boxed, clicked, clip_of, disk, painted, same_answers, tracker_of, walking_disk

from slicecast.engine.caches import ResultCache
from slicecast.engine.crop_window import paste
from slicecast.engine.propagation import segment
from slicecast.models.registry import bundled_spec
from slicecast.models.sam2 import Sam2Predictor, load_predictor
from slicecast.models.sam2_build import build_sam2

NANO = Path(__file__).parents[2] / "configs" / "sam2_nano.yaml"
COUNT = 9
TRUTH = walking_disk(COUNT, step_px=1.0)
SECOND = np.stack([disk(centre_xy=(18, 48), radius=7)] * COUNT)
CLIP = clip_of(TRUTH | SECOND)
NEVER_ENDS = replace(PLAIN, gone_slices=0, keep_components=True, fill_holes_px=16)

LOGIT_TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def untrained():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_sam2(NANO, image_size=64)
    return Sam2Predictor(model, previous_mask=True, dense_prompts=True)


@pytest.fixture(scope="module")
def bundled():
    return load_predictor(bundled_spec(), device="cpu")


CHOICES = {
    "a": [
        clicked(2, (28, 32)),
        clicked(6, (32, 32), order=1),
        clicked(4, negative=[(44, 32)], order=2),
        painted(8, TRUTH[8]),
        boxed(0, 16, 22, 36, 42),
        absent(7),
    ],
    "b": [clicked(4, (18, 48)), painted(1, SECOND[1]), clicked(7, (18, 50), order=1)],
}
"""What may be said of two objects; at most one prompt on a slice."""


def states():
    """Sequences of prompts, each a subset of CHOICES that can start."""
    chosen = st.fixed_dictionaries({name: st.sets(st.integers(0, len(c) - 1)) for name, c in CHOICES.items()})
    return st.lists(chosen.map(prompts_of).filter(bool), min_size=2, max_size=3)


def prompts_of(chosen):
    said = {
        name: sorted((CHOICES[name][n] for n in numbers), key=lambda p: p.slice) for name, numbers in chosen.items()
    }
    return {name: prompts for name, prompts in said.items() if any(p.starts for p in prompts)}


def undecided(result, number):
    """Tell where rounding decides whose a pixel of a slice is; bool (H, W).

    A batch of another size is added up in another order, so the last bit of a logit depends on what else was asked.
    The greatest logit wins, 0 standing for nothing.
    """
    logits = [
        paste(track.answers[number].logits, track.crop, CLIP.shape[1:])
        for track in result.objects.values()
        if number in track.answers
    ]
    ranked = np.sort([np.zeros(CLIP.shape[1:]), *logits], axis=0)
    return ranked[-1] - ranked[-2] < LOGIT_TOLERANCE


def check(predictor, options, sequence):
    kept = ResultCache(1 << 26)
    for prompts in sequence:
        after = segment(tracker_of(CLIP, options=options, predictor=predictor, result_cache=kept), prompts)
        full = segment(tracker_of(CLIP, options=options, predictor=predictor), prompts)
        assert after.labels.keys() == full.labels.keys()
        for number, label in full.labels.items():
            assert ((after.labels[number] == label) | undecided(full, number)).all()
        for name, track in full.objects.items():
            assert same_answers(after.objects[name].answers, track.answers, atol=LOGIT_TOLERANCE)


@given(sequence=states())
@settings(max_examples=5)
def test_with_random_weights(untrained, sequence):
    # Nothing that makes many pixels follow one: noise has thousands of pixels next to 0.
    check(untrained, replace(NEVER_ENDS, keep_components=False, fill_holes_px=0), sequence)


@given(sequence=states())
@settings(max_examples=3)
def test_with_the_bundled_model(bundled, sequence):
    check(bundled, replace(NEVER_ENDS, zoom="on", gone_slices=2), sequence)
