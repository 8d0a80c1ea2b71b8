"""Networks with seeded random weights that tests of several parts need."""

import torch
from sam2.sam2_video_predictor import SAM2VideoPredictor

from slicecast.config import config_dir
from slicecast.models.sam2_build import VIDEO_PREDICTOR, build_sam2


def tiny_video_model() -> SAM2VideoPredictor:
    """Return sam2's video predictor with the bundled model's architecture at 64 px."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_sam2(config_dir() / "sam2_nano.yaml", image_size=64, target=VIDEO_PREDICTOR, stock_defaults=True)
