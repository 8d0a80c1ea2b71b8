"""Map a scan's numbers to grey values in [0, 1] with one window, fixed over the whole volume.

How "auto" decides, in this order:
1. The modality is CT, or it is unknown and the numbers look like Hounsfield units (at least one
   voxel in 200 is -500 or less, as air is, none is below -10000, and 19 in 20 lie below 5000 but not all
   below -500): the CT preset `ct_default` of `configs/windows.yaml`.
2. Otherwise (MR, ultrasound, data normalised by mean and deviation, data in [0, 1] or 0..255): the configured
   percentiles of the voxels that are not background. The background is the most frequent single value, if at
   least a tenth of the voxels has it. Where it lies inside the window (zero around mean/std-normalised
   data), it is drawn black.
"""

import logging
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from slicecast.config import config_dir, read_config, refuse_unknown_keys
from slicecast.errors import ConfigError
from slicecast.volume.grid import Volume

logger = logging.getLogger(__name__)

HU_AIR_AT_MOST = -500.0  # A volume without modality of which one voxel in 200 is at most this may be CT
HU_BODY_AT_MOST = 5000.0  # In a CT nearly all voxels lie below this; metal may not
HU_PADDING_AT_LEAST = -10_000.0  # No scanner pads below this; a smaller minimum is not Hounsfield units
BACKGROUND_SHARE = 0.1  # A single value is background when at least this share of the voxels has it
SAMPLE_SIZE = 1_000_000  # Percentiles are taken on a regular subsample of about this many voxels

_KEYS = ("ct", "ct_default", "percentiles")


@dataclass(frozen=True, slots=True)
class Window:
    """Numbers from `low` to `high` become grey values 0 to 1.

    `background`, where given, is one exact number that is drawn black although it lies inside the window.
    """

    name: str
    low: float
    high: float
    background: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ConfigError(
                f"The window '{self.name}' runs from {self.low:g} to {self.high:g}; low must be below high."
            )


@dataclass(frozen=True, slots=True)
class _Presets:
    ct: dict[str, Window]
    ct_default: str
    percentiles: tuple[float, float]


VOLUMES_OWN = ("auto", "percentile", "full")
"""Names of windows that depend on the volume."""


def window_names() -> tuple[str, ...]:
    """List the names that `choose_window` accepts, beside numbers such as '-160:240'."""
    return (*VOLUMES_OWN, *_presets().ct)


def window_named(name: str | None) -> Window | None:
    """Return a window by its name, None for one that depends on the volume; raises ConfigError for no name."""
    word = _plain(name or "auto")
    if word in _presets().ct:
        return _presets().ct[word]
    if ":" in word:
        return _window_of_numbers(word)
    if word not in VOLUMES_OWN:
        raise ConfigError(f"Unknown window '{name}'. Use {', '.join(window_names())} or numbers such as -160:240.")
    return None


def choose_window(volume: Volume, name: str | None = "auto") -> Window:
    """Choose the window of a whole volume; give the canonical volume so that storage order cannot matter.

    Args:
        name: 'auto' or None (the rule at the top of this module), 'percentile', 'full' (smallest to largest),
            a CT preset of `configs/windows.yaml`, or two numbers as 'low:high'.

    Raises:
        ConfigError: the name is unknown.
    """
    named = window_named(name)
    if named is not None:
        return named
    word, presets = _plain(name or "auto"), _presets()
    sample = _sample(volume.array)
    if word == "auto" and _is_ct(volume.modality, sample):
        return presets.ct[presets.ct_default]
    if word == "full":
        return _spread("full", float(volume.array.min()), float(volume.array.max()))
    return _percentile_window(sample, presets.percentiles)


def normalise(array: np.ndarray, window: Window) -> np.ndarray:
    """Map numbers (any shape, real dtype) to grey values: float32 in [0, 1], same shape, C order.

    Works on one slice as on a whole volume, so a caller can keep memory low by going slice by slice.
    """
    grey = np.subtract(array, window.low, dtype=np.float32, order="C", casting="unsafe")
    grey *= np.float32(1.0 / (window.high - window.low))
    np.clip(grey, 0.0, 1.0, out=grey)
    if window.background is not None:
        grey[np.equal(array, window.background)] = 0.0
    return grey


def looks_like_ct(volume: Volume) -> bool:
    """Tell whether a volume is CT: its modality is CT, or unknown and its numbers look like Hounsfield units."""
    return _is_ct(volume.modality, _sample(volume.array))


def _is_ct(modality: str | None, sample: np.ndarray) -> bool:
    if modality is not None:
        return modality.upper() == "CT"
    dark, bright = np.percentile(sample, (0.5, 95.0))
    air = float(sample.min()) >= HU_PADDING_AT_LEAST and dark <= HU_AIR_AT_MOST
    return bool(air and bright < HU_BODY_AT_MOST and float(sample.max()) > HU_AIR_AT_MOST)


def _percentile_window(sample: np.ndarray, percentiles: tuple[float, float]) -> Window:
    background = _background(sample)
    content = sample if background is None else sample[sample != background]
    low, high = (float(value) for value in np.percentile(content, percentiles))
    if low >= high:
        return _spread("full", float(sample.min()), float(sample.max()))
    if background is not None and background > high:  # dark content on white paper: keep the paper white
        return Window("percentile", low, background)
    inside = background is not None and low < background
    return Window("percentile", low, high, background=background if inside else None)


def _background(sample: np.ndarray) -> float | None:
    values, counts = np.unique(sample, return_counts=True)
    most = int(counts.argmax())
    if len(values) == 1 or counts[most] < BACKGROUND_SHARE * sample.size:
        return None
    return float(values[most])


def _spread(name: str, low: float, high: float) -> Window:
    if low < high:
        return Window(name, low, high)
    logger.warning("Every voxel has the same value %g: there is no contrast to segment.", low)
    return Window("constant", low, low + max(1.0, abs(low)))


def _sample(array: np.ndarray) -> np.ndarray:
    """Take a regular, deterministic subsample, flat, of about SAMPLE_SIZE voxels."""
    step = max(1, math.ceil((array.size / SAMPLE_SIZE) ** (1 / 3)))
    return array[::step, ::step, ::step].ravel()


def _window_of_numbers(text: str) -> Window:
    try:
        low, high = (float(part) for part in text.split(":"))
    except ValueError as error:
        raise ConfigError(f"The window '{text}' is not two numbers; write it as -160:240.") from error
    return Window(text, low, high)


def _plain(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").split())


def _presets() -> _Presets:
    return _load_presets(str(config_dir()))


@lru_cache(maxsize=8)
def _load_presets(folder: str) -> _Presets:
    content = read_config("windows.yaml", known=_KEYS)
    where = f"{folder}/windows.yaml"
    try:
        ct = {_plain(name): _window_of_preset(_plain(name), entry, where) for name, entry in content["ct"].items()}
        low, high = content["percentiles"]
        default = _plain(content["ct_default"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"{where} needs ct, ct_default and percentiles as in the file that is shipped ({error})."
        ) from error
    if default not in ct:
        raise ConfigError(f"ct_default '{default}' in {where} is none of its windows: {', '.join(ct)}.")
    return _Presets(ct, default, (float(low), float(high)))


def _window_of_preset(name: str, entry: dict[str, float], where: str) -> Window:
    refuse_unknown_keys(entry, ("level", "width"), where=f"{where}, window '{name}'")
    return Window(name, entry["level"] - entry["width"] / 2, entry["level"] + entry["width"] / 2)
