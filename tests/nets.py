"""Networks with seeded random weights that tests of several parts need."""

import torch
from oracle_fill import fill_torch
from safetensors.torch import save_file
from sam2.sam2_video_predictor import SAM2VideoPredictor

from slicecast.config import config_dir
from slicecast.models import weights
from slicecast.models.registry import get_spec
from slicecast.models.sam2_build import VIDEO_PREDICTOR, build_sam2
from slicecast.models.volumetric import build_volumetric


def give_weights(name: str) -> None:
    """Put rule-made weights of a registered volumetric model in place (SLICECAST_HOME), and trust them."""
    spec = get_spec(name)
    path = weights.weights_path(spec)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(fill_torch(build_volumetric(str(spec.architecture))).state_dict(), path)
    weights.verify(spec, lambda sha256, size: True)


def tiny_video_model() -> SAM2VideoPredictor:
    """Return sam2's video predictor with the bundled model's architecture at 64 px."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_sam2(config_dir() / "sam2_nano.yaml", image_size=64, target=VIDEO_PREDICTOR, stock_defaults=True)
