"""Settings of the engine."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from slicecast.config import require_numbers
from slicecast.errors import ConfigError

PLACE = "engine.yaml: propagation"  # Where they are set, but from Python

RETIRED = ("far_anchor", "settle_slices")
"""Options of earlier versions, as sessions still hold them; neither could be set but from Python."""

ADDED: Mapping[str, Any] = {"taper": 0.0, "parts": False, "progressive": False, "calibrate": False}
"""Options that came after the first sessions, as those answered without them."""

STOCK: Mapping[str, Any] = {
    "zoom": "off",
    "gone_slices": 0,
    "like_share": 0.0,
    "least_iou": 0.0,
    "taper": 0.0,
    "leap": 0.0,
    "bounded_clicks": False,
    "parts": False,
    "progressive": False,
    "calibrate": False,
    "evidence": "off",
    "keep_components": False,
    "fill_holes_px": 0,
    "multi_axis": False,
}
"""What `EngineOptions.stock` sets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How prompts are carried through a volume.

    Args:
        stock: answer as SAM 2's own predictor does: every other option is set as :data:`STOCK` says. What remains is
            in docs/decisions/0031-rules-for-other-weights.md.
        zoom: crop around the object before resampling to the model's input: ``auto`` follows the
            model's registry entry.
        zoom_margin: side of the crop over the larger side of the object on its prompted slices.
        zoom_rounds: how often the crop may grow when the object reaches its border.
        gone_slices: a track ends after so many slices in a row without the object; 0 never.
        like_share: beyond the outermost prompted slices, a mask must have at least this share of its pixels in
            the anchor's range of grey values, or counts as gone; 0 switches the rule off.
        least_iou: beyond the outermost prompted slices, a mask of which the model expects a lower IoU counts as gone; 0
            switches the rule off.
        taper: beyond the outermost painted slice, an object that narrows there is followed for this many times the
            slices that an ellipsoid would go on for; so is, with `progressive`, what a later prompt adds past the ends
            that it had; 0 switches the rule off.
        leap: no track starts from a corrected slice whose largest part is this many times as large as on every other
            anchor, and of which the model is no surer: it has run into something else; 0 switches the rule off.
        bounded_clicks: the clicks of a slice count one after another, and the image decides what each may change; off:
            all at once, and the model's answer stands.
        parts: the first click's answer stays when the window widens; a positive click beside the answer so far is also
            answered by itself, in a window of its own, and what it shows is added where it lies apart. Needs
            `bounded_clicks`.
        progressive: a further click changes only what hangs together with it in the volume, what is painted after
            clicks only what is nearest to it (`engine/progressive`).
        calibrate: a track whose masks are too small on the very slice that it starts from is given the logit that it
            lacks there (`engine/calibration`).
        evidence: tell the model, and its finished masks, how much each pixel looks like the object where it was
            prompted: ``auto`` follows the model's registry entry.
        keep_components: of the volume, keep only the parts that hold a painted pixel, a boxed one or a positive click.
        fill_holes_px: fill holes in a slice up to this area, in pixels.
        multi_axis: propagate along the other two slice axes too, and let them weigh in (`engine/axes`).

    Raises:
        ConfigError: a value is out of range.
    """

    stock: bool = False
    zoom: Literal["auto", "on", "off"] = "auto"
    zoom_margin: float = 2.0
    zoom_rounds: int = 1
    gone_slices: int = 2
    like_share: float = 0.6
    least_iou: float = 0.4
    taper: float = 1.5
    leap: float = 1.5
    bounded_clicks: bool = True
    parts: bool = True
    progressive: bool = True
    calibrate: bool = True
    evidence: Literal["auto", "on", "off"] = "auto"
    keep_components: bool = True
    fill_holes_px: int = 16
    multi_axis: bool = False

    def __post_init__(self) -> None:
        for name, value in STOCK.items() if self.stock else ():
            object.__setattr__(self, name, value)
        for name in ("zoom", "evidence"):
            if getattr(self, name) not in ("auto", "on", "off"):
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be auto, on or off.")
        require_numbers(self, "zoom_margin", high=10, whole=False, where=PLACE)
        require_numbers(self, "like_share", "least_iou", low=0, high=1, whole=False, where=PLACE)
        if self.leap and not 1.0 < self.leap <= 100.0:
            raise ConfigError(f"The setting leap in {PLACE} is {self.leap!r}; it must be 0 or lie between 1 and 100.")
        require_numbers(self, "taper", low=0, high=100, whole=False, where=PLACE)
        require_numbers(self, "zoom_rounds", "gone_slices", "fill_holes_px", low=0, where=PLACE)


def from_stored(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as some version stored them, such that they answer as they did then."""
    return {**ADDED, **{name: value for name, value in stored.items() if name not in RETIRED}}
