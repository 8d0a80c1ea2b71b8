"""SAM 2's own video predictor, with seeded random weights at 64 px."""

from pathlib import Path

import numpy as np
import pytest
import torch
from nets import tiny_video_model

from slicecast.errors import ConfigError
from slicecast.models.registry import bundled_spec, get_spec
from slicecast_lab.evaluation import video
from slicecast_lab.evaluation.video import VideoTracker, load_video_tracker

FRAMES = 9


@pytest.fixture(scope="module")
def tracker() -> VideoTracker:
    return VideoTracker(tiny_video_model())


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return list(rng.integers(0, 256, (FRAMES, 40, 56), dtype=np.uint8))


@pytest.fixture(scope="module")
def mask() -> np.ndarray:
    painted = np.zeros((40, 56), dtype=bool)
    painted[10:30, 15:40] = True
    return painted


def test_a_painted_mask_comes_back_and_is_tracked_to_both_ends(tracker, frames, mask):
    with tracker.open(frames) as clip:
        assert np.count_nonzero((clip.paint(4, mask) > 0) != mask) < 0.1 * mask.sum()
        out, back = clip.propagate(), clip.propagate(start=3, reverse=True)
    assert [frame for frame, _ in out] == [4, 5, 6, 7, 8]
    assert [frame for frame, _ in back] == [3, 2, 1, 0]
    assert all(logits.shape == (40, 56) and logits.dtype == np.float32 for _, logits in out + back)


def test_the_way_back_sees_what_the_way_out_remembered(tracker, frames, mask, attended):
    """The published scripts do not reset in between; 16 memory tokens a frame at 64 px, and one anchor."""
    with tracker.open(frames) as clip:
        clip.paint(4, mask)
        clip.propagate()
        attended.clear()
        clip.propagate(start=3, reverse=True)
        leaked = list(attended)
    with tracker.open(frames) as clip:
        clip.paint(4, mask)
        attended.clear()
        clip.propagate(start=3, reverse=True)
        clean = list(attended)
    spatial = [tokens // 16 for tokens in leaked], [tokens // 16 for tokens in clean]
    assert spatial == ([5, 6, 6, 6], [1, 2, 3, 4])


def test_clicks_are_sent_again_and_decide_the_frame(tracker, frames):
    with tracker.open(frames) as clip:
        one = clip.click(4, [(20, 20)], [1])
        two = clip.click(4, [(20, 20), (40, 10)], [1, 0])
    assert one.shape == (40, 56) and not np.array_equal(one, two)


def test_nothing_is_left_on_the_disk(tracker, frames, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with tracker.open(frames):
        (folder,) = tmp_path.iterdir()
        assert sorted(file.name for file in folder.iterdir())[:2] == ["00000.jpg", "00001.jpg"]
    assert list(tmp_path.iterdir()) == []


def test_the_bundled_weights_fit_sam2s_own_predictor():
    tracker = load_video_tracker(bundled_spec(), device="cpu")
    assert tracker.device == torch.device("cpu")
    assert tracker.fill_hole_area_px == (video.FILL_HOLE_AREA_PX if torch.cuda.is_available() else 0)


def test_a_model_that_cannot_run_is_refused():
    with pytest.raises(ConfigError, match="edgetam"):
        load_video_tracker(get_spec("edgetam"))


@pytest.fixture
def attended(tracker):
    """Memory tokens of each attention, object pointers not counted."""
    counts: list[int] = []
    attention = tracker._model.memory_attention
    hook = attention.register_forward_pre_hook(
        lambda module, args, kwargs: counts.append(kwargs["memory"].shape[0] - kwargs["num_obj_ptr_tokens"]),
        with_kwargs=True,
    )
    yield counts
    hook.remove()
