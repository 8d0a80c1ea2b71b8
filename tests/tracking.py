"""Clips of slices, prompts and trackers for the tests of the engine and the models.

Import as `from tracking import ...` (pytest puts `tests/` on the path).
"""

from typing import Any

import numpy as np

from slicecast.engine.caches import EmbeddingCache
from slicecast.engine.crop_window import CropWindow, Frames, paste
from slicecast.engine.fusion import SliceAnswer
from slicecast.engine.options import EngineOptions
from slicecast.engine.postprocess import ObjectResult
from slicecast.engine.tracks import Tracker
from slicecast.prompts import SlicePrompt
from slicecast_lab.simulation.fake import FakePredictor

PLAIN = EngineOptions(zoom="off", least_iou=0.0, calibrate=False, fill_holes_px=0, keep_components=False)
"""Nothing but propagation."""


def disk(size_hw: tuple[int, int] = (64, 64), *, centre_xy: Any = (32, 32), radius: float = 10.0) -> np.ndarray:
    """Draw a disk; bool (H, W)."""
    y, x = np.indices(size_hw, dtype=float)
    return (x - centre_xy[0]) ** 2 + (y - centre_xy[1]) ** 2 <= radius**2


def clip_of(truth: np.ndarray, *, seed: int = 0, noise: float = 0.02, grey: float = 0.7) -> np.ndarray:
    """Make slices in which `truth` (N, H, W) is brighter than its surroundings; float32 (N, H, W) in [0, 1]."""
    rng = np.random.default_rng(seed)
    clip = np.where(truth, grey, 0.1) + rng.normal(0.0, noise, truth.shape)
    return clip.clip(0, 1).astype(np.float32)


def walking_disk(count: int = 9, *, first: int = 0, stop: int | None = None, step_px: float = 1.0) -> np.ndarray:
    """Draw a disk that wanders to the right, on slices first..stop; bool (N, 64, 64)."""
    stop = count if stop is None else stop
    on = [disk(centre_xy=(26 + step_px * n, 32)) for n in range(count)]
    return np.stack([mask & (first <= n < stop) for n, mask in enumerate(on)])


def frames_of(clip: np.ndarray, *, spacing_xy_mm: tuple[float, float] = (1.0, 1.0), key: str = "clip") -> Frames:
    """Offer a clip (N, H, W) as frames."""
    return Frames(len(clip), clip.shape[1:], spacing_xy_mm, lambda n: clip[n], key)


def tracker_of(clip: np.ndarray, **given: Any) -> Tracker:
    """Make a tracker on a clip: `predictor`, `cache`, `options`, `progress`, `cancelled` as given."""
    kept = {"predictor": FakePredictor(), "cache": EmbeddingCache(1 << 28), "options": PLAIN, **given}
    return Tracker(frames=frames_of(clip), **kept)


def clicked(number: int, *positive: tuple[float, float], negative: Any = (), order: int = 0) -> SlicePrompt:
    """Click on one slice, after `order` other clicks."""
    points = np.array([*positive, *negative], dtype=np.float32).reshape(-1, 2)
    return SlicePrompt(number, points, np.array([1] * len(positive) + [0] * len(negative), dtype=np.int64), order=order)


def painted(number: int, mask: np.ndarray) -> SlicePrompt:
    """Paint one slice."""
    return SlicePrompt(number, mask=mask)


def boxed(number: int, *corners: float) -> SlicePrompt:
    """Box one slice: x0, y0, x1, y1."""
    return SlicePrompt(number, box_xyxy=np.array(corners, dtype=np.float32))


def absent(number: int) -> SlicePrompt:
    """Say that a slice does not show the object."""
    return SlicePrompt(number, absent=True)


def answer(mask: np.ndarray | None = None, **given: Any) -> SliceAnswer:
    """Make an answer with a mask (m, m); without one the object is not there."""
    mask = np.zeros((8, 8), dtype=bool) if mask is None else mask
    logits = np.where(mask, 5.0, -5.0).astype(np.float32)
    return SliceAnswer(logits, **{"predicted_iou": 0.9, "object_score": 4.0 if mask.any() else -4.0, **given})


def mask_of(track: ObjectResult, number: int, shape_hw: tuple[int, int] = (64, 64)) -> np.ndarray:
    """Return one object's mask on a slice; bool (H, W)."""
    found = track.answers.get(number)
    if found is None or not found.present:
        return np.zeros(shape_hw, dtype=bool)
    return paste(found.logits, track.crop, shape_hw) > 0


def same_answers(first: dict[int, SliceAnswer], second: dict[int, SliceAnswer], *, atol: float = 0.0) -> bool:
    """Whether two sets of answers are alike in every slice, logit and score."""
    return first.keys() == second.keys() and all(
        np.allclose(first[n].logits, second[n].logits, rtol=0, atol=atol)
        and abs(first[n].object_score - second[n].object_score) <= atol
        for n in first
    )


WHOLE = CropWindow(0, 0, 64, 64)
"""The window of a 64 x 64 slice."""
