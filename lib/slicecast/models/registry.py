"""The models that ``configs/models.yaml`` names: what they are and where their weights come from.

The order of the file is an order of preference: see :func:`slicecast.models.weights.default_model`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from slicecast.config import build, config_dir, read_config
from slicecast.errors import ConfigError, UnknownModel

REGISTRY_FILE = "models.yaml"

STRIDE_PX = 16  # Input pixels per memory token of a SAM 2: an input's size must be a multiple
INTENSITIES = re.compile(r"window|percentiles|positive|-?[0-9.]+:-?[0-9.]+")  # What `intensity` may be


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One model and its weights file.

    Raises:
        ConfigError: a field is out of range, or the fields contradict each other.
    """

    name: str  # key in the registry
    title: str  # one line for people
    architecture: str | None  # YAML path, absolute or inside the ``sam2`` package; None where unsupported
    image_size: int  # pixels of the square input, voxels of a volumetric model's cube
    file: str  # name of the weights file
    licence: str  # licence of the weights, with any condition on their use
    url: str | None = None  # where to pull from; None for a bundled model, and for one that is trained by its recipe
    by_hand: bool = False  # the URL is a page for people, from which nothing can be pulled
    bytes: int | None = None  # size of the file
    sha256: str | None = None  # its SHA-256, 64 lower-case hex digits
    recipe: str = ""  # file in ``configs/`` by which anybody can train the weights, which nobody publishes
    bundled: bool = False  # the file ships with the package
    carry: bool = False  # the previous slice's logits enter as dense prompt
    dense_prompts: bool = False  # clicks and boxes are drawn into the dense prompt
    zoom: bool = False  # the engine crops around the object unless told otherwise
    # the engine tells the model how much each pixel looks like the object, unless told otherwise
    evidence: bool = False
    pointers: bool = True  # the memory attention sees object pointers, as in every published SAM 2
    folder: str = ""  # where the file is, if not at the usual place
    volumetric: bool = False  # it sees cubes of the scan, not slices: a 3D network such as SAM-Med3D
    spacing_mm: float = 1.5  # of a volumetric model's grid
    # multiples of that spacing at which an object is tried; the least doubtful answer to its first click decides
    scales: tuple[float, ...] = (1.0,)
    # how a volumetric model's grey values are normalised: by the scan's ``window``, by the cube's ``percentiles`` 1 and
    # 99, by mean and deviation of the ``positive`` values, or between ``LOW:HIGH``
    intensity: str = "window"
    # mean Dice that the bundled weights must reach on sample data, by prompt; a test holds them to it
    floors: Mapping[str, float] = field(default_factory=dict, hash=False)
    notes: str = ""  # what else a user should know
    unsupported: str = ""  # why this version cannot run it; empty where it can

    def __post_init__(self) -> None:
        for problem in _problems(self):
            raise ConfigError(f"Model {self.name!r} in {REGISTRY_FILE}: {problem}")

    @property
    def supported(self) -> bool:
        """Whether this version can run the model."""
        return not self.unsupported


def load_registry() -> dict[str, ModelSpec]:
    """Return every model of ``configs/models.yaml`` by name, in order of preference.

    Raises:
        ConfigError: the file is missing or an entry is wrong.
    """
    entries = read_config(REGISTRY_FILE, known=["models"]).get("models")
    if not isinstance(entries, dict) or not entries:
        raise ConfigError(f"{REGISTRY_FILE} names no models; it needs a mapping under 'models'.")
    return {name: _spec(str(name), entry) for name, entry in entries.items()}


def get_spec(name: str) -> ModelSpec:
    """Return the model of that name.

    Raises:
        UnknownModel: no such model; the message lists the known ones.
    """
    registry = load_registry()
    if name not in registry:
        raise UnknownModel(f"No model {name!r}. Known models: {', '.join(registry)}.")
    return registry[name]


def bundled_spec(registry: dict[str, ModelSpec] | None = None) -> ModelSpec:
    """Return the SAM 2 that ships with the package; raises ConfigError if the registry marks none, or several."""
    registry = load_registry() if registry is None else registry
    bundled = [spec for spec in registry.values() if spec.bundled and not spec.volumetric]
    if len(bundled) != 1:
        names = ", ".join(spec.name for spec in bundled) or "none"
        raise ConfigError(f"{REGISTRY_FILE} must mark exactly one SAM 2 as bundled; it marks {names}.")
    return bundled[0]


def _spec(name: str, entry: object) -> ModelSpec:
    where = f"model {name!r} of {REGISTRY_FILE}"
    if not isinstance(entry, dict):
        raise ConfigError(f"The entry of {where} is {entry!r}; it must be a mapping.")
    return build(ModelSpec, {"name": name, **entry, **_own_architecture(entry.get("architecture"))}, where=where)


def _own_architecture(architecture: object) -> dict[str, str]:
    """Make the path of a YAML beside the registry absolute; those of the sam2 package stay as they are."""
    beside = config_dir() / str(architecture).removeprefix("configs/")
    return {"architecture": str(beside)} if beside.is_file() else {}


def _problems(spec: ModelSpec) -> list[str]:
    """Return what is wrong with an entry, one sentence each."""
    rules = {
        f"image_size is {spec.image_size!r}; it must be a positive multiple of {STRIDE_PX}.": (
            isinstance(spec.image_size, int) and spec.image_size > 0 and spec.image_size % STRIDE_PX == 0
        ),
        f"file is {spec.file!r}; it must be a plain file name.": spec.file == Path(spec.file).name != "",
        f"url is {spec.url!r}; it must start with https:// (or http:// for a mirror of your own).": (
            bool(spec.bundled or spec.recipe)
            if spec.url is None
            else re.match(r"https?://[^/]+/", spec.url) is not None
        ),
        f"sha256 is {spec.sha256!r}; it must be 64 lower-case hex digits.": _hash_is_fine(spec),
        f"bytes is {spec.bytes!r}; it must be a positive number.": spec.bytes is None or spec.bytes > 0,
        "licence must not be empty.": bool(spec.licence),
        f"spacing_mm is {spec.spacing_mm!r}; it must lie between 0.1 and 10.": 0.1 <= spec.spacing_mm <= 10,
        f"scales is {spec.scales!r}; it must list numbers from 0.1 to 100.": bool(spec.scales)
        and all(isinstance(scale, int | float) and 0.1 <= scale <= 100 for scale in spec.scales),
        f"intensity is {spec.intensity!r}; it must be window, percentiles, positive or LOW:HIGH.": (
            INTENSITIES.fullmatch(spec.intensity) is not None
        ),
        "a supported model needs an architecture.": bool(spec.architecture) or not spec.supported,
    }
    return [sentence for sentence, holds in rules.items() if not holds]


def _hash_is_fine(spec: ModelSpec) -> bool:
    if spec.sha256 is None:
        return spec.bundled or spec.volumetric or not spec.supported  # pinned at first use, see weights.pin
    return re.fullmatch(r"[0-9a-f]{64}", str(spec.sha256)) is not None
