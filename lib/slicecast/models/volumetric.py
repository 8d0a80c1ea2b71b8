"""SAM-Med3D and CT-SAM3D behind the engine's port for volumes, built from a YAML in `configs/`."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor, nn

from slicecast.config import build, refuse_unknown_keys
from slicecast.engine.volumetric import CubeAnswer
from slicecast.errors import ConfigError, WeightsCorrupt
from slicecast.models.ct_sam3d import CtSam3D, CtSam3DSize
from slicecast.models.devices import choose_device, memory_errors, threads
from slicecast.models.graphs import Graph, available, compile_graphs
from slicecast.models.layers3d import MaskAnswer
from slicecast.models.registry import ModelSpec
from slicecast.models.sam_med3d import SamMed3D, SamMed3DSize
from slicecast.models.weights import load_state_dict, pinned
from slicecast.volume import Geometry, Window
from slicecast.volume.isotropic import ras_grid, world_grid

CODE_VERSION = 2  # Raise it whenever this file, a network or the engine's `volumetric` changes what a model answers
SMALL_PARAMETERS = 10_000_000  # Up to this many a network runs on one CPU thread: its operations are too short to share
CT_OUTSIDE = -1024.0  # What CT-SAM3D takes for outside the scan
OUTSIDE: Mapping[str, float | None] = {"positive": 0.0, "window": None}  # By intensity; None: the scan mirrored


@dataclass(frozen=True, slots=True, eq=False)
class EncodedCube:
    """One encoded cube, on the model's device: the normalised image, and what the network made of it."""

    image: Tensor
    features: Any

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        maps = self.features if isinstance(self.features, list) else [self.features]
        return sum(t.numel() * t.element_size() for t in (self.image, *maps))


class TorchVolumePredictor:
    """A volumetric network as a :class:`slicecast.engine.volumetric.VolumePredictor`.

    Args:
        model: the network, in eval mode, on its device.
        spacing_mm: of its grid.
        intensity: how grey values are normalised, see `ModelSpec`.
        scales: multiples of the spacing at which an object may be looked at.
        fingerprint: names weights and settings.
    """

    def __init__(
        self,
        model: SamMed3D | CtSam3D,
        *,
        spacing_mm: float,
        intensity: str,
        scales: Sequence[float] = (1.0,),
        fingerprint: str = "unnamed",
    ) -> None:
        self._model = model
        self._spacing_mm = spacing_mm
        self._normalise = normaliser(intensity)
        self._reversed = isinstance(model, SamMed3D)  # it counts voxels (i, j, k), the others (k, j, i)
        self._small = is_small(model)
        self.side = model.side
        self.scales = tuple(scales)
        self.outside = OUTSIDE.get(intensity, CT_OUTSIDE)
        self.fingerprint = f"{fingerprint}/{CODE_VERSION}/{spacing_mm:g}/{intensity}/{self.scales}"

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return next(self._model.parameters()).device

    def grid(self, stored: Geometry, scale: float = 1.0) -> Geometry:
        """Return the isotropic grid of a scan: SAM-Med3D's turned to RAS, CT-SAM3D's along the world's axes."""
        return (ras_grid if self._reversed else world_grid)(stored, self._spacing_mm * scale)

    def encode(self, cube: NDArray[np.float32], window: Window) -> EncodedCube:
        """Encode a cube (S, S, S) of the scan's own values."""
        grey = self._normalise(cube, window)
        image = torch.from_numpy(np.ascontiguousarray(grey.T if self._reversed else grey))[None, None].to(self.device)
        with self._inference():
            return EncodedCube(image, self._model.encode(image))

    def segment(
        self, embedding: EncodedCube, points: NDArray[np.int64], positive: NDArray[np.bool_], previous: Tensor | None
    ) -> CubeAnswer:
        """Answer all clicks so far."""
        ordered = np.ascontiguousarray(points[:, ::-1] if self._reversed else points)
        clicks, signs = (torch.from_numpy(array)[None].to(self.device) for array in (ordered, positive))
        with self._inference():
            step = self._model.segment(embedding.image, embedding.features, clicks, signs, previous)
            logits = step.logits[0, 0].float().cpu().numpy()
        return CubeAnswer(logits.T if self._reversed else logits, float(step.iou), step.previous)

    def propose(self, own: EncodedCube, mask: NDArray[np.bool_], neighbour: EncodedCube) -> NDArray[np.float32] | None:
        """Return CT-SAM3D's heat map of where to click in a neighbouring cube; None where there is no such network."""
        if not isinstance(self._model, CtSam3D) or self._model.cpp_predictor is None:
            return None
        inside = torch.from_numpy(mask)[None, None].to(self.device, torch.float32)
        with self._inference():
            return self._model.propose(own.image, inside, neighbour.image)[0, 0].float().cpu().numpy()

    def release(self) -> None:
        """Give back what the device holds and nobody uses."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @contextlib.contextmanager
    def _inference(self) -> Iterator[None]:
        one = 1 if self.device.type == "cpu" and self._small else None
        with memory_errors(self.device), threads(one), torch.inference_mode():
            yield


def load_volume_predictor(spec: ModelSpec, *, device: str = "auto", openvino: bool = False) -> TorchVolumePredictor:
    """Build a registered volumetric model with its weights.

    Args:
        device: as for `choose_device`.
        openvino: let OpenVINO compute a small CT-SAM3D's decoder; on a CPU only, and where it is installed.

    Raises:
        WeightsMissing: the file is not on this machine.
        WeightsCorrupt: the file is not the right one, or its tensors are not the network's.
        DeviceUnavailable: no such device.
        ConfigError: this version cannot run the model.
    """
    place = choose_device(device)
    model = load_by_name(build_volumetric(str(spec.architecture)), load_state_dict(spec), name=spec.name)
    predictor = TorchVolumePredictor(
        model.to(place, torch.float32),  # type: ignore[arg-type]
        spacing_mm=spec.spacing_mm,
        intensity=spec.intensity,
        scales=spec.scales,
        fingerprint=f"{spec.name}:{pinned(spec).sha256}",
    )
    if openvino and place.type == "cpu" and is_small(model) and isinstance(model, CtSam3D) and available():
        compile_decoder(model, key=predictor.fingerprint)
    return predictor


def is_small(model: nn.Module) -> bool:
    """Tell whether a network is one of the small ones."""
    return sum(p.numel() for p in model.parameters()) <= SMALL_PARAMETERS


def compile_decoder(model: CtSam3D, *, key: str) -> None:
    """Let OpenVINO compute a network's decoder, which most of an answer's time goes to.

    Args:
        key: as for `compile_graphs`.
    """
    random, side = torch.Generator().manual_seed(0), (model.side,) * 3
    with torch.no_grad():
        features = model.encode(torch.rand(1, 1, *side, generator=random))
    example = (*features, torch.rand(1, model.size.maps, *side, generator=random))
    (graph,) = compile_graphs("the volumetric decoder", FlatDecoder(model.mask_decoder), [example], key=key)
    model.mask_decoder = GraphDecoder(graph)


class FlatDecoder(nn.Module):
    """A decoder of tensors only, as a graph has to be."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, *maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (1, 2, S, S, S) and predicted IoU (1, 2) from the features and, last, the prompts."""
        answer: MaskAnswer = self.decoder([*maps[:-1]], maps[-1])
        return answer.logits, answer.iou


class GraphDecoder(nn.Module):
    """A compiled decoder in the place of a network's own."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, features: Sequence[Tensor], prompts: Tensor) -> MaskAnswer:
        """Answer as the network's own decoder does."""
        logits, quality = self.graph(*features, prompts)
        return MaskAnswer(logits, quality)


Normaliser = Callable[[NDArray[np.float32], Window], NDArray[np.float32]]


def normaliser(intensity: str) -> Normaliser:
    """Return how a cube's values become grey values: `window`, `percentiles`, `positive` or `LOW:HIGH`."""
    named: dict[str, Normaliser] = {"window": by_window, "percentiles": by_percentiles, "positive": by_positive}
    if intensity in named:
        return named[intensity]
    low, high = map(float, intensity.split(":"))
    return lambda cube, window: between(cube, low, high)


def between(cube: NDArray[np.float32], low: float, high: float) -> NDArray[np.float32]:
    """Map `low` ... `high` to 0 ... 1, and what lies beyond to the ends."""
    low32, high32 = np.float32(low), np.float32(high)
    return (np.clip(cube, low32, high32) - low32) / np.float32(max(float(high32 - low32), 1e-6))


def by_window(cube: NDArray[np.float32], window: Window) -> NDArray[np.float32]:
    """Map by the window of the whole scan."""
    return between(cube, window.low, window.high)


def by_percentiles(cube: NDArray[np.float32], window: Window) -> NDArray[np.float32]:
    """Map by the cube's own 1st and 99th percentile, as CT-SAM3D does where it is told no bounds."""
    low, high = np.percentile(cube, (1, 99)).tolist()
    return between(cube, low, high)


def by_positive(cube: NDArray[np.float32], window: Window) -> NDArray[np.float32]:
    """Standardise by mean and deviation of the values above 0, as SAM-Med3D does; of all where none is above."""
    body = cube[cube > 0] if np.count_nonzero(cube > 0) > 1 else cube.ravel()
    deviation = float(body.std(ddof=1, dtype=np.float64))
    return ((cube - np.float32(body.mean(dtype=np.float64))) / np.float32(deviation or 1.0)).astype(np.float32)


NETWORKS: Mapping[str, tuple[type, Callable[[Any], nn.Module]]] = {
    "sam_med3d": (SamMed3DSize, SamMed3D),
    "ct_sam3d": (CtSam3DSize, CtSam3D),
}
"""What `network` may be: the class of its sizes, and the network's."""

NAMED_AT_MOST = 8  # Tensors that an error lists; the rest is counted


def build_volumetric(architecture: str | Path) -> nn.Module:
    """Return the network that a YAML describes, with fresh weights, ready to predict.

    Raises:
        ConfigError: there is no such YAML, or it describes no network.
    """
    try:
        content = yaml.safe_load(Path(architecture).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"Cannot read the architecture {architecture}: {error}.") from error
    where = f"architecture {Path(architecture).name}"
    if not isinstance(content, dict) or content.get("network") not in NETWORKS:
        raise ConfigError(f"The {where} needs 'network', one of {', '.join(NETWORKS)}.")
    refuse_unknown_keys(content, ["network", "size"], where=where)
    sizes, network = NETWORKS[content["network"]]
    return network(build(sizes, content.get("size") or {}, where=f"{where}: size")).eval()


def load_by_name(model: nn.Module, tensors: Mapping[str, Tensor], *, name: str) -> nn.Module:
    """Give a network the tensors of a checkpoint; every name and shape must match.

    Raises:
        WeightsCorrupt: some are missing, unknown or of another shape; the message lists them.
    """
    own = model.state_dict()
    problems = {
        "missing": [entry for entry in own if entry not in tensors],
        "unknown": [entry for entry in tensors if entry not in own],
        "of another shape": [e for e, t in tensors.items() if e in own and own[e].shape != t.shape],
    }
    found = [f"{len(names)} {what} ({_listed(names)})" for what, names in problems.items() if names]
    if found:
        raise WeightsCorrupt(
            f"The weights of {name!r} do not fit its network; tensors: {'; '.join(found)}. "
            "Fetch the file again, or correct the sizes in its architecture's YAML."
        )
    with torch.no_grad():
        model.load_state_dict({entry: t.to(own[entry].dtype) for entry, t in tensors.items()})
    return model


def _listed(names: list[str]) -> str:
    more = len(names) - NAMED_AT_MOST
    return ", ".join(names[:NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
