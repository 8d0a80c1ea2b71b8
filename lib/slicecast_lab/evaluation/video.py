"""SAM 2's own video predictor, unchanged, for protocols of others: frames as JPEG files, its own memory and quirks.

The product does not use it: see ``slicecast.models.sam2``.
"""

import contextlib
import importlib.util
import io
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sam2.sam2_video_predictor import SAM2VideoPredictor

from slicecast.models.devices import choose_device
from slicecast.models.registry import ModelSpec
from slicecast.models.sam2_build import VIDEO_PREDICTOR, load_sam2

FILL_HOLE_AREA_PX = 8
"""What ``sam2.build_sam`` sets; it needs SAM 2's CUDA extension and is left out where that was not built."""

OBJECT_ID = 1


class VideoClip:
    """One clip with its prompts and memory; nothing is ever reset.

    Args:
        model: SAM 2's predictor.
        state: its inference state.
        device: decides about bf16: on CUDA only.
    """

    def __init__(self, model: SAM2VideoPredictor, state: dict[str, Any], device: torch.device) -> None:
        self._model, self._state, self._device = model, state, device

    def click(self, frame: int, points_xy: Sequence[tuple[int, int]], labels: Sequence[int]) -> NDArray[np.float32]:
        """Give all clicks of a frame, 1 on the object and 0 beside it; return its logits (H, W)."""
        points, kinds = np.array(points_xy, dtype=np.float32), np.array(labels, dtype=np.int32)
        with _as_published(self._device):
            _, _, logits = self._model.add_new_points_or_box(
                self._state, frame_idx=frame, obj_id=OBJECT_ID, points=points, labels=kinds
            )
        return _plane(logits)

    def paint(self, frame: int, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Give a frame's mask (H, W); return the logits (H, W) that SAM 2 makes of it."""
        with _as_published(self._device):
            _, _, logits = self._model.add_new_mask(self._state, frame_idx=frame, obj_id=OBJECT_ID, mask=mask)
        return _plane(logits)

    def propagate(self, *, start: int | None = None, reverse: bool = False) -> list[tuple[int, NDArray[np.float32]]]:
        """Track from a frame (default: the prompted one) to one end; return (frame, logits (H, W)) as visited."""
        with _as_published(self._device):
            walk = self._model.propagate_in_video(self._state, start_frame_idx=start, reverse=reverse)
            return [(frame, _plane(logits)) for frame, _, logits in walk]


class VideoTracker:
    """SAM 2's video predictor with its weights.

    Args:
        model: the network, in eval mode, on its device.
    """

    def __init__(self, model: SAM2VideoPredictor) -> None:
        self._model = model
        self.device: torch.device = model.device
        self.fill_hole_area_px: int = model.fill_hole_area

    @contextlib.contextmanager
    def open(self, frames: Sequence[NDArray[np.uint8]]) -> Iterator[VideoClip]:
        """Load a clip of grey frames (H, W) through JPEG files of PIL's default quality, as SAM 2's loader wants it."""
        with tempfile.TemporaryDirectory(prefix="slicecast-") as folder:
            for number, frame in enumerate(frames):
                Image.fromarray(frame).save(Path(folder) / f"{number:05d}.jpg")
            with _as_published(self.device):
                state = self._model.init_state(video_path=folder)
            yield VideoClip(self._model, state, self.device)


def load_video_tracker(spec: ModelSpec, *, device: str = "auto") -> VideoTracker:
    """Build SAM 2's video predictor with a registered model's weights and the package's own post-processing.

    Switches of the entry that stock SAM 2 does not know (``carry``, ``dense_prompts``, ``zoom``) have no effect.

    Raises:
        WeightsMissing: the file is not on this machine.
        WeightsCorrupt: the file is not the right one.
        DeviceUnavailable: no such device.
        ConfigError: this version cannot run the model.
    """
    place = choose_device(device)
    model = load_sam2(spec, target=VIDEO_PREDICTOR, stock_defaults=True)
    model.fill_hole_area = FILL_HOLE_AREA_PX if _has_extension() else 0
    return VideoTracker(model.to(place, torch.float32))


def _has_extension() -> bool:
    return torch.cuda.is_available() and importlib.util.find_spec("sam2._C") is not None


@contextlib.contextmanager
def _as_published(device: torch.device) -> Iterator[None]:
    """Run as the published scripts do: bf16 and TF32 on CUDA, plain float32 elsewhere; without progress bars."""
    cuda = device.type == "cuda"
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    if cuda:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=cuda), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def _plane(logits: torch.Tensor) -> NDArray[np.float32]:
    return logits[0, 0].float().cpu().numpy()
