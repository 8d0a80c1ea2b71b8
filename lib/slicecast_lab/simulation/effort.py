"""What an annotator did, and how long that takes a person."""

from collections.abc import Mapping
from dataclasses import dataclass, replace


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
