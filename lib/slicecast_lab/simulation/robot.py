"""The robot annotator: it knows the truth, and prompts as a person would, perfectly or not; and what its work costs.

The noisy one paints outlines that wander, slips by about a pixel, and now and then clicks with the wrong sign.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from slicecast.errors import ConfigError
from slicecast.prompts.simulate import Click, next_click, noisy_mask

Kind = Literal["perfect", "noisy"]

WANDER_PX, SMOOTH_PX = 1.2, 3.0
"""How far a noisy outline is off, about (less where the object is small), and over what length it stays so."""

SLIP_PX = 1.0
"""Deviation of a noisy click from where it was meant."""

WRONG_CLICKS = 0.07
"""Share of noisy clicks with the wrong sign."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Robot:
    """An annotator of one seed: the same hand paints the same slice of the same case in the same way.

    Raises:
        ConfigError: there is no such kind.
    """

    kind: Kind = "perfect"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ConfigError(f"There is no robot '{self.kind}'. Use one of: {', '.join(get_args(Kind))}.")

    def paint(self, truth: Mask, case: str, number: int) -> Mask:
        """Paint a slice (H, W) of which the truth is known; empty where that is."""
        if self.kind == "perfect" or not truth.any():
            return truth.copy()
        amplitude = float(min(WANDER_PX, np.sqrt(np.count_nonzero(truth)) / 6))
        hand = generator(self.seed, "paint", case, number)
        return noisy_mask(truth, hand, amplitude_px=amplitude, smoothness_px=SMOOTH_PX)

    def click(
        self, truth: Mask, found: Mask, case: str, number: int, times: int, *, spacing: tuple[float, float]
    ) -> Click | None:
        """Click deepest inside the largest error of a slice (H, W); None where there is none.

        Args:
            times: clicks made on the slice before.
            spacing: of pixel centres, (x, y).
        """
        meant = next_click(truth, found, spacing=spacing)
        if meant is None or self.kind == "perfect":
            return meant
        rng = generator(self.seed, "click", case, number, times)
        slipped = np.rint(np.array(meant.index) + rng.normal(0.0, SLIP_PX, 2)).astype(int)
        x, y = np.clip(slipped, 0, np.array(truth.shape[::-1]) - 1).tolist()
        # The first click defines the object: its sign is never wrong.
        wrong = times > 0 and rng.random() < WRONG_CLICKS
        return replace(meant, index=(x, y), positive=meant.positive != wrong)


PERFECT = Robot()


def generator(*words: object) -> np.random.Generator:
    """Return the random generator that belongs to these words; the same in every process."""
    digest = hashlib.blake2b("/".join(map(str, words)).encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


@dataclass(frozen=True, slots=True)
class Actions:
    """What was done: slices looked at, clicks, boxes drawn, slices painted."""

    looks: int = 0
    clicks: int = 0
    boxes: int = 0
    masks: int = 0

    def __add__(self, other: "Actions") -> "Actions":
        return Actions(
            self.looks + other.looks, self.clicks + other.clicks, self.boxes + other.boxes, self.masks + other.masks
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EffortModel:
    """Seconds of each action, after published measurements of annotators; the truth of a project may differ."""

    look_s: float = 1.0
    click_s: float = 2.0
    box_s: float = 7.0
    mask_s: float = 80.0

    def seconds(self, done: Actions) -> float:
        """Return how long the actions take."""
        return (
            done.looks * self.look_s + done.clicks * self.click_s + done.boxes * self.box_s + done.masks * self.mask_s
        )


EFFORT = EffortModel()

EFFORTS: Mapping[str, EffortModel] = {
    "as given": EFFORT,
    "painting x 0.5": replace(EFFORT, mask_s=EFFORT.mask_s / 2),
    "painting x 2": replace(EFFORT, mask_s=EFFORT.mask_s * 2),
}
"""Only ratios matter to a comparison, so what is most uncertain, painting, is varied against the rest."""
