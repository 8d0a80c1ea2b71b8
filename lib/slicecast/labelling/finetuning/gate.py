"""The gate: new weights are used only if they are not worse, on labels that they have not seen.

A structure is segmented as an annotator would: from a click, a box, a mask on its largest slice, and from the click
with three further slices painted, each where the product suggests. New and deployed weights answer the same prompts on
the same labels; the differences in Dice are averaged for each kind of prompt. The new weights pass if no kind loses
more than the margin and all kinds together gain.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

from slicecast.engine.support import box_of
from slicecast.errors import SlicecastError
from slicecast.inference.results import SegmentResult
from slicecast.inference.segment import SegmentRequest, SegmentService
from slicecast.inference.studies import Study
from slicecast.prompts import Box, MaskPrompt, ObjectPrompts, Point, PromptSet
from slicecast.prompts.mapping import slice_to_source_ijk
from slicecast.prompts.simulate import next_click
from slicecast.training.finetune import RoundSettings
from slicecast.volume import SliceAxis, SliceStack, choose_axis
from slicecast.volume.metrics import dice

KINDS = ("click", "box", "mask", "corrections")
"""Prompts that are compared."""

PAINTED = 3
"""Slices painted after the click, for `corrections`."""

NAME = "object"

Mask = NDArray[np.bool_]

Scores = Mapping[str, Mapping[str, float]]
"""Structure of a case -> kind of prompt -> Dice over the volume."""


@dataclass(frozen=True, slots=True, eq=False)
class JudgedObject:
    """A structure whose true mask is known."""

    image: Path  # file or folder of the scan
    study: Study  # the scan, opened
    truth: Mask  # bool [k, j, i], as stored

    @property
    def axis(self) -> SliceAxis:
        """The axis along which the product slices the scan."""
        return choose_axis(self.study.volume.geometry)

    def dice_by_prompt(self, service: SegmentService) -> dict[str, float]:
        """Return the Dice of the product's answer to each kind of prompt; 0 where it cannot be prompted so."""
        return {kind: self._dice(service, kind) for kind in KINDS}

    def _dice(self, service: SegmentService, kind: str) -> float:
        try:
            result = self._ask(service, self._first(kind))
            painted: list[int] = []
            while kind == "corrections" and len(painted) < PAINTED and result.next_slice is not None:
                painted.append(result.next_slice.slice)
                result = self._ask(service, self._first("click", painted))
        except SlicecastError:
            return 0.0
        return dice(result.mask == 1, self.truth)

    def _ask(self, service: SegmentService, prompts: ObjectPrompts) -> SegmentResult:
        request = SegmentRequest(self.image, PromptSet((prompts,)), axis=self.axis.name.lower())
        return service.segment(request, study=self.study)

    def _first(self, kind: str, painted: Sequence[int] = ()) -> ObjectPrompts:
        stack = SliceStack(self.study.reorientation.to_canonical_array(self.truth), self.axis)
        number = int(np.argmax([np.count_nonzero(stack.slice(n)) for n in range(stack.count)]))
        shown = stack.slice(number)
        stored = self.study.reorientation.to_source_slice(self.axis, number)
        masks = (MaskPrompt(self.truth, slices=tuple(painted) or (stored,)),)
        if kind == "mask":
            return ObjectPrompts(NAME, masks=masks)
        if kind == "box":
            low, high = self._stored(number, box_of(shown).reshape(2, 2).astype(int))
            return ObjectPrompts(NAME, boxes=(Box(low, high),))
        click = next_click(shown, np.zeros_like(shown), spacing=self.axis.pixel_spacing_mm(self.study.volume.geometry))
        places = self._stored(number, np.array([click.index if click else (0, 0)]))
        return ObjectPrompts(NAME, points=(Point(places[0]),), masks=masks if painted else ())

    def _stored(self, number: int, xy: NDArray[np.integer]) -> list[tuple[int, int, int]]:
        found = slice_to_source_ijk(self.study.reorientation, self.axis, n=number, xy=xy)
        return [(int(i), int(j), int(k)) for i, j, k in found]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says."""

    passed: bool  # the new weights may be used
    why: str  # in words
    deployed: Mapping[str, float]  # mean Dice of the deployed weights by kind of prompt
    new: Mapping[str, float]  # of the new ones
    gain: float = 0.0  # mean difference over all kinds, with its 95 % interval `low` to `high` over cases
    low: float = 0.0  # see there
    high: float = 0.0  # see there
    structures: int = 0  # how many were compared

    def described(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def judge(new: Scores, deployed: Scores, *, settings: RoundSettings, groups: Mapping[str, str]) -> Verdict:
    """Compare scores of the same structures.

    Args:
        new: of the new weights, none of which has learnt the structure that it answers.
        deployed: of the deployed ones, likewise; structures that only one side has are left out.
        settings: `margin`, the most that a kind of prompt may lose, and `least_gain` of all together.
        groups: structure -> its case; the interval is over cases.
    """
    both = sorted(new.keys() & deployed.keys())
    if not both:
        return Verdict(False, "There is no label on which the weights could be compared.", {}, {})
    means = [{kind: float(np.mean([s[name][kind] for name in both])) for kind in KINDS} for s in (deployed, new)]
    gains = {name: float(np.mean([new[name][kind] - deployed[name][kind] for kind in KINDS])) for name in both}
    cases = sorted({groups[name] for name in both})
    by_case = [float(np.mean([gain for name, gain in gains.items() if groups[name] == case])) for case in cases]
    total = float(np.mean(by_case))
    lost = {kind: means[0][kind] - means[1][kind] for kind in KINDS}
    worst = max(KINDS, key=lambda kind: lost[kind])
    margin, passed = settings.margin, lost[worst] <= settings.margin and total > settings.least_gain
    if passed:
        why = f"The new weights gain {total:+.3f} Dice, and no kind of prompt loses more than {margin:g}."
    elif lost[worst] > margin:
        why = f"From '{worst}' the new weights lose {lost[worst]:.3f} Dice; at most {margin:g} is allowed."
    else:
        why = f"The new weights gain {total:+.3f} Dice; more than {settings.least_gain:g} is needed."
    old, own = ({kind: round(value, 4) for kind, value in mean.items()} for mean in means)
    low, high = _interval(by_case)
    return Verdict(passed, why, old, own, round(total, 4), round(low, 4), round(high, 4), len(both))


def _interval(gains: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of a mean; of a single value that value."""
    if len(gains) < 2:
        return gains[0], gains[0]
    found = bootstrap((gains,), np.mean, method="percentile", rng=np.random.default_rng(0)).confidence_interval
    return float(found.low), float(found.high)
