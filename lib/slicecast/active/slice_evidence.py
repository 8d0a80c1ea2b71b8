"""What is known of an object's slices, what a suggestion is weighed with, and the suggestion itself."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from slicecast.errors import ConfigError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

Question = Literal["outline", "present"]
"""What the annotator is asked: to correct the outline, or only whether the object is on the slice."""


@dataclass(frozen=True, slots=True, eq=False)
class SliceEvidence:
    """What is known of one object on each of a volume's N slices.

    Args:
        quality: (N,) float in [0, 1], expected IoU; NaN where no lane came.
        area_px: (N,) predicted pixels, 0 where the object is not seen.
        agreement: (N,) Dice of what the lanes from both sides said; NaN where not two of them met.
        annotated: (N,) bool, the annotator said something there, "absent" included, or accepted and locked it.
        absent: (N,) bool, the annotator said that it is not there.
        calibrated: the qualities were fitted to true ones, so that the stop rule can trust their values.

    Raises:
        ConfigError: the arrays differ in length.
    """

    quality: Floats
    area_px: Floats
    agreement: Floats
    annotated: Bools
    absent: Bools
    calibrated: bool = False

    def __post_init__(self) -> None:
        arrays = (self.quality, self.area_px, self.agreement, self.annotated, self.absent)
        if len({array.shape for array in arrays}) != 1 or self.quality.ndim != 1:
            raise ConfigError(f"Evidence of slices has shapes {[a.shape for a in arrays]}; give one length for all.")

    @property
    def free(self) -> Bools:
        """Slices that may be suggested: answered by a lane and not annotated."""
        return ~self.annotated & np.isfinite(self.quality)

    @property
    def wrong(self) -> Floats:
        """Expected share that is wrong, u = 1 - quality; 0 where annotated or unknown."""
        return np.where(self.free, 1.0 - np.nan_to_num(self.quality, nan=1.0), 0.0)

    @property
    def extent(self) -> tuple[int, int] | None:
        """First and last slice on which the object is seen, or None."""
        seen = np.flatnonzero(self.area_px > 0)
        return (int(seen[0]), int(seen[-1])) if len(seen) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class SlicePolicy:
    """What a suggestion is weighed with.

    Args:
        rho: what a correction is worth one slice further on, as a share.
        enough: nothing more is suggested where every calibrated u is below this; 0 never stops.
        look_cost: nor where the best gain (in slices put right) is below what a look costs.

    Raises:
        ConfigError: a value is out of range.
    """

    rho: float = 0.85
    enough: float = 0.1
    look_cost: float = 0.2

    def __post_init__(self) -> None:
        for name, most in (("rho", 1.0), ("enough", 1.0), ("look_cost", 1000.0)):
            if not 0.0 <= getattr(self, name) <= most:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; give a number from 0 to {most:g}.")


@dataclass(frozen=True, slots=True)
class SliceChoice:
    """The slice to look at next, or that none is worth a look.

    Args:
        slice: its number; None: good enough.
        reason: why, in words and numbers.
        score: the strategy's own measure, larger is more worth a look; comparable between objects.
        strategy: name of what chose, which differs from what was asked for where that had nothing to go by.
        question: what to ask there.
    """

    slice: int | None
    reason: str
    score: float
    strategy: str
    question: Question = "outline"
