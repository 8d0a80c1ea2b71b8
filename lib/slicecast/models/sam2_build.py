"""Build SAM 2 networks from a YAML and load their weights, without touching hydra's global state.

The YAML is one of the ``sam2`` package's own (``configs/sam2.1/sam2.1_hiera_t.yaml``) or one of
this project's in the same form. Nothing is inherited: the classes are the package's.
"""

from importlib import resources
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from sam2.modeling.memory_attention import MemoryAttention
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from slicecast.errors import ConfigError, WeightsCorrupt
from slicecast.models.registry import ModelSpec
from slicecast.models.weights import load_state_dict

STRIDE_PX = 16  # Input pixels per memory token, in every published SAM 2

STOCK_DECODER_EXTRAS = {
    "dynamic_multimask_via_stability": True,
    "dynamic_multimask_stability_delta": 0.05,
    "dynamic_multimask_stability_thresh": 0.98,
}
"""What ``sam2.build_sam`` adds by default: an unstable single mask falls back to the best of three."""

VIDEO_PREDICTOR = "sam2.sam2_video_predictor.SAM2VideoPredictor"

SPATIAL_ATTENTION = "slicecast.models.sam2_build.SpatialMemoryAttention"


def build_sam2(
    architecture: str | Path,
    *,
    image_size: int | None = None,
    target: str | None = None,
    stock_defaults: bool | None = None,
    pointers: bool = True,
) -> SAM2Base:
    """Instantiate the network of a YAML, with fresh weights.

    Args:
        architecture: path of a YAML file, or a path inside the ``sam2`` package.
        image_size: pixels of the square input; a multiple of 16. Default: the YAML's own.
        target: dotted class to build instead of the YAML's, for example :data:`VIDEO_PREDICTOR`.
        stock_defaults: apply the settings that ``sam2.build_sam`` applies on top of the YAML.
            Default: only for the package's own YAMLs.
        pointers: the memory attention sees object pointers, as in every published SAM 2.

    Raises:
        ConfigError: there is no such YAML, or the size does not suit.
    """
    own_file = Path(architecture).is_file()
    model = _load_yaml(architecture).model
    if image_size is not None:
        _set_image_size(model, image_size)
    if target is not None:
        model["_target_"] = target
    _set_pointers(model, pointers)
    if not own_file if stock_defaults is None else stock_defaults:
        model["sam_mask_decoder_extra_args"] = STOCK_DECODER_EXTRAS
        model["binarize_mask_from_pts_for_mem_enc"] = True
    return instantiate(model, _recursive_=True).eval()


def load_sam2(spec: ModelSpec, *, target: str | None = None, stock_defaults: bool | None = None) -> SAM2Base:
    """Build a registered model's network with its weights, on the CPU.

    Args:
        spec: the model.
        target: dotted class to build, as for :func:`build_sam2`.
        stock_defaults: as for :func:`build_sam2`.

    Raises:
        ConfigError: this version cannot run the model.
        WeightsMissing: the file is not on this machine.
        WeightsCorrupt: the file is not the right one.
    """
    state = load_state_dict(spec)  # refuses what has no architecture
    architecture = str(spec.architecture)
    model = build_sam2(
        architecture, image_size=spec.image_size, target=target, stock_defaults=stock_defaults, pointers=spec.pointers
    )
    missing, unexpected = model.load_state_dict(state, strict=False)
    if missing or unexpected:
        raise WeightsCorrupt(
            f"The weights of {spec.name!r} do not fit its architecture: {len(missing)} tensors are missing, "
            f"{len(unexpected)} are unknown. Run 'slicecast models verify {spec.name}'."
        )
    return model


def write_architecture(architecture: str | Path, target: Path, *, image_size: int, pointers: bool = True) -> None:
    """Write the YAML of a network at an input size, for tools that build it from a file themselves.

    Args:
        pointers: as for :func:`build_sam2`; without them, the tool must find this package.

    Raises:
        ConfigError: there is no such YAML, or the size does not suit.
    """
    content = _load_yaml(architecture)
    _set_image_size(content.model, image_size)
    _set_pointers(content.model, pointers)
    OmegaConf.save(content, target)


def _load_yaml(architecture: str | Path) -> DictConfig:
    if Path(architecture).is_file():
        return _load(Path(architecture))
    packaged = resources.files("sam2").joinpath(str(architecture))
    if not packaged.is_file():
        raise ConfigError(
            f"No SAM 2 architecture {str(architecture)!r}: neither a file nor a config of the sam2 package. "
            "Name a YAML such as configs/sam2.1/sam2.1_hiera_t.yaml."
        )
    with resources.as_file(packaged) as path:
        return _load(path)


def _load(path: Path) -> DictConfig:
    content = OmegaConf.load(path)
    if not isinstance(content, DictConfig) or "model" not in content:
        raise ConfigError(f"{path.name} does not describe a SAM 2: it has no 'model'. See configs/sam2_nano.yaml.")
    return content


def _set_pointers(model: DictConfig, pointers: bool) -> None:
    if not pointers:
        model.memory_attention["_target_"] = SPATIAL_ATTENTION


def _set_image_size(model: DictConfig, image_size: int) -> None:
    if image_size < 4 * STRIDE_PX or image_size % STRIDE_PX:
        raise ConfigError(
            f"image_size is {image_size}; SAM 2 needs a multiple of {STRIDE_PX} of at least {4 * STRIDE_PX}."
        )
    tokens = image_size // STRIDE_PX
    model.image_size = image_size
    for attention in ("self_attention", "cross_attention"):
        model.memory_attention.layer[attention].feat_sizes = [tokens, tokens]


class SpatialMemoryAttention(MemoryAttention):
    """Attends to the memory maps alone; has the weights of its base class.

    In a network of a few million parameters the pointers' logits outgrew those of the maps, and took all attention.
    """

    def forward(
        self,
        curr: Tensor | list[Tensor],
        memory: Tensor,
        curr_pos: Tensor | list[Tensor] | None = None,
        memory_pos: Tensor | None = None,
        num_obj_ptr_tokens: int = 0,
    ) -> Tensor:
        """Return the conditioned map (t * t, B, C) float32.

        Args:
            curr: (t * t, B, C), the slice's map.
            memory: (K, B, 64) spatial tokens, then the pointers' tokens.
            curr_pos: position encoding of `curr`.
            memory_pos: position encoding of `memory`.
            num_obj_ptr_tokens: how many of K belong to pointers.
        """
        kept = memory.shape[0] - num_obj_ptr_tokens
        query = curr[0] if isinstance(curr, list) else curr
        # Memory is stored in bfloat16; it was the concatenation with float32 pointers that promoted it.
        spatial = memory[:kept].to(query.dtype)
        position = None if memory_pos is None else memory_pos[:kept]
        return super().forward(curr, spatial, curr_pos, position, 0)
