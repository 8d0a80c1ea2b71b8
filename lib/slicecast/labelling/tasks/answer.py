"""The answer to an infer request: a mask file on the source's grid, and what clients read beside it.

A mask holds only values that the client can name. `label_names` lists the objects that have voxels, by value,
because Slicer pairs its names with the values present, in order.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from slicecast.files import temporary
from slicecast.inference.results import SegmentResult, objects_of, slice_counts
from slicecast.labelling.tasks.request import EXTENSIONS, InferRequest
from slicecast.volume import Geometry, write_mask

DEFAULT_EXTENSION = ".nrrd"
"""Used when neither the client nor the image's name gives a format; the only one that OHIF reads."""


@dataclass(frozen=True, slots=True)
class InferAnswer:
    """The answer to an infer request."""

    file: Path  # the mask; temporary, deleted by whoever sends it
    params: dict[str, Any]  # what clients read beside it, as JSON values; see `answer_params`
    # what each slice without a prompt was judged by, a row (`active/calibration`) by slice number, counted as stored
    # along the axis of the params. The confidence is calibrated with it; clients do not get it.
    slice_features: Mapping[str, Sequence[float]] = field(default_factory=dict)
    slice: int | None = None  # the one slice k that a 2D task answered


def write_answer(result: SegmentResult, request: InferRequest, *, image: Path) -> InferAnswer:
    """Write the mask to a temporary file on the source's grid."""
    start = time.perf_counter()
    mask = renumber(result.mask, result.labels, request.values)
    with temporary(answer_ending(request.extension, image)) as path:
        write_mask(path, mask, result.geometry, compress=request.compress)
    seconds = {**result.seconds, "write": time.perf_counter() - start}
    params = answer_params(result, mask, values=request.values, seconds=seconds)
    features = {str(int(c.slice)): c.features.to_row() for c in result.confidence if c.features is not None}
    return InferAnswer(path, params, features, request.slice)


def answer_params(
    result: SegmentResult, mask: np.ndarray, *, values: Mapping[str, int], seconds: Mapping[str, float]
) -> dict[str, Any]:
    """Collect what goes beside the mask, as JSON values.

    Keys: label_names (name -> value, objects with voxels), label_info (the same as a list), objects (value, voxels
    and ml of each), confidence (per slice, counted as stored along `axis`), confidence_kind (raw or calibrated),
    mean_confidence, axis, window, next_slice (slice, axis, reason, score, strategy), good_enough (why there
    is none), slices (recomputed, reused; stopped: object, slice, reason), latencies in seconds, warnings.
    """
    return {
        **described_objects(mask, values, result.geometry),
        "confidence": [{"slice": int(c.slice), "value": _rounded(c.value)} for c in result.confidence],
        "confidence_kind": "calibrated" if result.calibrated else "raw",
        "mean_confidence": mean_confidence(result),
        "axis": result.axis,
        "window": result.window.name if result.window else None,
        "next_slice": _next_slice(result),
        "good_enough": result.good_enough,
        "slices": slice_counts(result),
        "latencies": _latencies(seconds),
        "warnings": list(result.warnings),
    }


def described_objects(mask: np.ndarray, values: Mapping[str, int], geometry: Geometry) -> dict[str, Any]:
    """Return `label_names`, `label_info` and `objects` of a mask, as `answer_params` says."""
    objects = objects_of(mask, dict(sorted(values.items(), key=lambda item: item[1])), geometry)
    present = {name: found["value"] for name, found in objects.items() if found["voxels"]}
    return {
        "label_names": present,
        "label_info": [{"name": name, "idx": value} for name, value in present.items()],
        "objects": objects,
    }


def renumber(mask: np.ndarray, labels: Mapping[str, int], values: Mapping[str, int]) -> np.ndarray:
    """Give each object of a uint8 mask [k, j, i] the number that the client expects for its name."""
    table = np.zeros(256, dtype=np.uint8)
    for name, label in labels.items():
        table[label] = values[name]
    return table[mask]


def mean_confidence(result: SegmentResult) -> float | None:
    """Average the confidence over the slices; None when there is none."""
    known = [c.value for c in result.confidence if math.isfinite(c.value)]
    return round(sum(known) / len(known), 4) if known else None


def _next_slice(result: SegmentResult) -> dict[str, Any] | None:
    suggestion = result.next_slice
    if suggestion is None:
        return None
    return {
        "slice": int(suggestion.slice),
        "axis": str(suggestion.axis),
        "reason": suggestion.reason,
        "score": _rounded(suggestion.score),
        "strategy": suggestion.strategy,
    }


def _latencies(seconds: Mapping[str, float]) -> dict[str, float]:
    """Name the steps as MONAI Label's clients know them (pre, infer, post, write, total), beside our own names."""
    total = seconds.get("total", 0.0) + seconds["write"]
    stock = {
        "pre": seconds.get("read", 0.0),
        "infer": seconds.get("encode", 0.0) + seconds.get("propagate", 0.0),
        "post": seconds.get("post", 0.0),
    }
    return {name: round(float(value), 4) for name, value in {**seconds, **stock, "total": total}.items()}


def _rounded(value: float) -> float | None:
    """Round; None for NaN, which JSON does not have and browsers refuse."""
    return round(float(value), 4) if math.isfinite(value) else None


def answer_ending(wanted: str | None, image: Path) -> str:
    """Return the format that a mask is sent in: the wanted one, else the image's own."""
    return wanted or next((ext for ext in EXTENSIONS if image.name.lower().endswith(ext)), DEFAULT_EXTENSION)
