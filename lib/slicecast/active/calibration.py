"""Calibrates the model's confidence of a slice against its true IoU, and measures how well it ranks.

The model's own confidence is no probability, and it ranks badly as soon as slices without the object are among them
(docs/decisions/0021-slices-and-calibration.md). Submitted labels give the truth; each volume is judged by a fit to the
others.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from slicecast.active.slices import Floats

MIN_RIDGE, MIN_ISOTONIC, MIN_VOLUMES = 50, 200, 3
"""Slices and volumes from which on something is fitted, and from which on its values are put on a curve."""

MAX_PAIRS = 5000  # The newest that are used: a refit then takes about a second
GATE = 0.3  # Least rank correlation, on volumes that were left out, with which a fit is used

BINS = 10

EDGE = 0.02  # IoU is kept so far from 0 and 1 where its logit is fitted

Method = Literal["raw", "ridge", "isotonic"]


@dataclass(frozen=True, slots=True)
class SliceFeatures:
    """What is known of an answered slice without its truth."""

    raw: float  # the engine's own confidence
    seen: bool  # the object was found there
    predicted_iou: float  # the model's estimate, 0 to 1
    presence: float  # probability, by the model, that the object is there
    agreement: float  # Dice of the tracks from both sides; 1 where one came
    distance: float  # slices to the nearest one that was prompted
    # the smaller of the areas of this slice and a neighbour over the larger, of both neighbours the less
    area_ratio: float

    def to_row(self) -> list[float]:
        """Return its values as JSON numbers, in their order."""
        return [round(float(value), 4) for value in astuple(self)]

    @staticmethod
    def from_row(row: Sequence[float]) -> "SliceFeatures":
        """Read what `to_row` wrote."""
        raw, seen, *others = map(float, row)
        return SliceFeatures(raw, bool(seen), *others)


@dataclass(frozen=True, slots=True)
class Pair:
    """A slice's features and the IoU that it turned out to have, in a volume of that name."""

    volume: str
    features: SliceFeatures
    iou: float


@dataclass(frozen=True, slots=True)
class Reliability:
    """How well predicted qualities fit the true ones."""

    spearman: float  # rank correlation; 0 where nothing varies
    ece: float  # mean distance of predicted from true, in bins of equal mass
    aurc: float  # mean error of the surest slices, over all numbers of them; lower is better
    bins: tuple[tuple[float, float, int], ...]  # (mean predicted, mean true, slices) of each bin


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """A fit to submitted labels."""

    method: Method = "raw"  # `raw` where there were too few
    slices: int = 0  # used
    volumes: int = 0  # they came from
    before: Reliability | None = None  # the engine's own confidence
    after: Reliability | None = None  # the fit, each volume by a fit to the others; None where nothing was fitted
    fit: "Fit | None" = None
    model: str = ""  # fingerprint of the weights that were judged; empty for any

    def of_model(self, model: str) -> "Calibration":
        """Return the calibration of a model: none where it was fitted to another's answers."""
        return self if self.model in ("", model) else UNCALIBRATED

    @property
    def holds(self) -> bool:
        """Whether its values are used: it ranks unseen volumes well enough."""
        return self.after is not None and self.after.spearman >= GATE

    @property
    def failed(self) -> bool:
        """Whether there was enough to learn from, and it still does not rank: confidence then chooses nothing."""
        return self.after is not None and not self.holds

    def qualities(self, features: Sequence[SliceFeatures]) -> Floats:
        """Return the expected IoU of slices, (N,) in [0, 1]; the engine's own where the gate does not hold."""
        if not self.holds or self.fit is None or not features:
            return np.array([entry.raw for entry in features], dtype=np.float64)
        return self.fit.qualities(features)


UNCALIBRATED = Calibration()


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A ridge regression of the logit of IoU, and where there was enough, a rising curve after it."""

    ridge: Pipeline
    curve: IsotonicRegression | None

    @staticmethod
    def of(features: Sequence[SliceFeatures], iou: Floats, *, curve: bool) -> "Fit":
        """Fit to slices of known IoU."""
        kept = np.clip(iou, EDGE, 1 - EDGE)
        ridge = make_pipeline(StandardScaler(), Ridge(1.0)).fit(_design(features), np.log(kept / (1 - kept)))
        fitted = Fit(ridge, None)
        if not curve:
            return fitted
        rising = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
        return Fit(ridge, rising.fit(fitted.qualities(features), iou))

    def qualities(self, features: Sequence[SliceFeatures]) -> Floats:
        """Return the expected IoU of slices, (N,) in [0, 1]."""
        logits = self.ridge.predict(_design(features))
        flat = 1.0 / (1.0 + np.exp(-np.clip(logits, -30, 30)))
        return np.asarray(flat if self.curve is None else self.curve.predict(flat), dtype=np.float64)


def calibrate(pairs: Sequence[Pair], *, model: str = "") -> Calibration:
    """Learn from slices of known truth, the newest last; nothing from too few.

    Args:
        model: fingerprint of the weights whose answers these are.
    """
    pairs = pairs[-MAX_PAIRS:]
    volumes, slices = len({pair.volume for pair in pairs}), len(pairs)
    if slices < MIN_RIDGE or volumes < MIN_VOLUMES:
        return Calibration("raw", slices, volumes, model=model)
    features, iou = [pair.features for pair in pairs], np.array([pair.iou for pair in pairs])
    curve = slices >= MIN_ISOTONIC
    return Calibration(
        "isotonic" if curve else "ridge",
        slices,
        volumes,
        reliability(np.array([entry.raw for entry in features]), iou),
        reliability(left_out(pairs, curve=curve), iou),
        Fit.of(features, iou, curve=curve),
        model,
    )


def left_out(pairs: Sequence[Pair], *, curve: bool) -> Floats:
    """Return each slice's quality by a fit to all other volumes, (N,)."""
    names = np.array([pair.volume for pair in pairs])
    iou, quality = np.array([pair.iou for pair in pairs]), np.zeros(len(pairs))
    for name in sorted(set(names.tolist())):
        own = np.flatnonzero(names == name)
        others = np.flatnonzero(names != name)
        fit = Fit.of([pairs[n].features for n in others], iou[others], curve=curve)
        quality[own] = fit.qualities([pairs[n].features for n in own])
    return quality


def reliability(predicted: Floats, true: Floats) -> Reliability:
    """Compare predicted with true qualities; both (N,), N from 1."""
    bins = tuple(_bins(predicted, true))
    ece = sum(abs(mean - actual) * count for mean, actual, count in bins) / len(predicted)
    return Reliability(rank_correlation(predicted, true), ece, risk_of_coverage(predicted, true), bins)


def rank_correlation(predicted: Floats, true: Floats) -> float:
    """Return Spearman's correlation; 0 where one of them is constant, so that it ranks nothing."""
    if len(predicted) < 2 or np.ptp(predicted) == 0 or np.ptp(true) == 0:
        return 0.0
    found = float(spearmanr(predicted, true).statistic)
    return found if math.isfinite(found) else 0.0


def risk_of_coverage(predicted: Floats, true: Floats) -> float:
    """Return the area under the risk-coverage curve: the mean of 1 - IoU of the k surest, over all k."""
    risk = 1.0 - _tied_means(predicted, true)[np.argsort(-predicted, kind="stable")]
    return float(np.mean(np.cumsum(risk) / np.arange(1, len(risk) + 1)))


def _tied_means(predicted: Floats, true: Floats) -> Floats:
    """Give slices of equal quality their common mean, so that their order does not matter."""
    _, place = np.unique(predicted, return_inverse=True)
    return np.asarray((np.bincount(place, true) / np.bincount(place))[place])


def _bins(predicted: Floats, true: Floats) -> Iterator[tuple[float, float, int]]:
    order = np.argsort(predicted, kind="stable")
    for part in np.array_split(order, min(BINS, len(order))):
        yield float(predicted[part].mean()), float(true[part].mean()), len(part)


def _design(features: Sequence[SliceFeatures]) -> NDArray[Any]:
    """Return the regression's columns: other weights where the object is seen than where it is predicted absent."""
    rows = np.array([[s.predicted_iou, s.presence, s.agreement, s.distance, s.area_ratio] for s in features])
    seen = np.array([[float(s.seen)] for s in features])
    return np.hstack([rows * seen, rows * (1 - seen), seen])
