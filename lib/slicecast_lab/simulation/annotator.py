"""The robot annotator: it knows the truth, and prompts the product as a person would, perfectly or not.

The noisy one paints outlines that wander, slips by about a pixel, and now and then clicks with the wrong sign. What it
does is counted, and an effort model says how long that takes a person.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from slicecast.active.calibration import SliceFeatures
from slicecast.errors import ConfigError
from slicecast.inference.results import NextSlice
from slicecast.inference.segment import SegmentRequest, SegmentService
from slicecast.prompts import Absent, MaskPrompt, ObjectPrompts, Point, PromptSet
from slicecast.prompts.mapping import slice_to_source_ijk
from slicecast.prompts.simulate import Click, next_click
from slicecast.volume.metrics import dice
from slicecast_lab.evaluation.cases import TruthCase

Kind = Literal["perfect", "noisy"]

WANDER_PX, SMOOTH_PX = 1.2, 3.0
"""How far a noisy outline is off, about (less where the object is small), and over what length it stays so."""

SLIP_PX = 1.0  # Deviation of a noisy click from where it was meant
WRONG_CLICKS = 0.07  # Share of noisy clicks with the wrong sign

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


def noisy_mask(
    mask: np.ndarray, rng: np.random.Generator, *, amplitude_px: float = 2.0, smoothness_px: float = 6.0
) -> np.ndarray:
    """Repaint a mask (H, W) as a person would: its outline wanders smoothly by about `amplitude_px`.

    Returns:
        bool (H, W), never empty when `mask` is not.
    """
    inside = np.asarray(mask) != 0
    if not inside.any():
        return inside
    signed = ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)
    wander = ndimage.gaussian_filter(rng.standard_normal(inside.shape), smoothness_px)
    wander *= amplitude_px / max(float(wander.std()), 1e-12)
    repainted = signed + wander > 0
    near = signed > -3 * amplitude_px  # the outline wanders; no new blob appears far away
    return repainted & near if (repainted & near).any() else inside


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


NAME = "object"

STROKES = ("mask", "clicks")  # How the robot corrects a slice: it paints it whole, or clicks
GOOD_SLICE = 0.9  # Dice of a slice at which the robot stops clicking
MAX_CLICKS = 5  # On one slice


@dataclass(frozen=True, slots=True, eq=False)
class GivenPrompts:
    """All prompts of one object, on canonical slices."""

    painted: Mapping[int, Mask] = field(default_factory=dict)  # masks (H, W) by slice
    # (x, y, positive) in the order clicked, by slice; slices in the order clicked on first
    points: Mapping[int, tuple[tuple[int, int, bool], ...]] = field(default_factory=dict)
    absent: frozenset[int] = frozenset()  # slices that do not show it

    @property
    def slices(self) -> set[int]:
        """The slices that were prompted."""
        return {*self.painted, *self.points, *self.absent}

    @property
    def settled(self) -> set[int]:
        """The slices of which more than clicks is known."""
        return {*self.painted, *self.absent}

    def painting(self, number: int, mask: Mask) -> "GivenPrompts":
        """Return it with a painted slice."""
        return replace(self, painted={**self.painted, number: mask})

    def clicking(self, number: int, x: int, y: int, positive: bool) -> "GivenPrompts":
        """Return it with a click more."""
        return replace(self, points={**self.points, number: (*self.points.get(number, ()), (x, y, positive))})

    def without(self, number: int) -> "GivenPrompts":
        """Return it with a slice that does not show the object."""
        return replace(self, absent=self.absent | {number})

    def prompts(self, case: TruthCase) -> ObjectPrompts:
        """Return it as a client sends it: in stored voxels."""
        drawn = np.zeros_like(case.truth)
        stack = case.slices(drawn)
        for number, mask in self.painted.items():
            stack.slice(number)[...] = mask  # a view: it writes through to the stored array
        masks = (MaskPrompt(drawn, slices=tuple(map(case.stored_slice, self.painted))),) if self.painted else ()
        points = tuple(_point(case, n, *click) for n, clicks in self.points.items() for click in clicks)
        absent = tuple(Absent(case.stored_slice(n)) for n in sorted(self.absent))
        return ObjectPrompts(NAME, points=points, masks=masks, absent=absent)


@dataclass(frozen=True, slots=True, eq=False)
class ProductAnswer:
    """The product's answer."""

    mask: Mask  # bool [k, j, i], as stored
    next_slice: NextSlice | None  # what it suggests
    features: Mapping[int, SliceFeatures]  # what each slice that was not prompted is judged by, by canonical number


@dataclass(frozen=True, slots=True)
class RobotSession:
    """A case that the robot annotates through the product."""

    case: TruthCase
    service: SegmentService
    robot: Robot
    strokes: str = "mask"  # one of STROKES

    def ask(self, given: GivenPrompts, strategy: str = "") -> ProductAnswer:
        """Send all prompts as one whole request, as a client would."""
        prompts = PromptSet((given.prompts(self.case),))
        result = self.service.segment(SegmentRequest(self.case.files.image, prompts, slice_strategy=strategy))
        features = {self.case.stored_slice(c.slice): c.features for c in result.confidence if c.features is not None}
        return ProductAnswer(result.mask == 1, result.next_slice, features)

    def dice(self, answer: ProductAnswer) -> float:
        """Return the Dice of an answer over the volume."""
        return dice(answer.mask, self.case.truth)

    def iou(self, answer: ProductAnswer, number: int) -> float:
        """Return the IoU of an answer on a canonical slice; 1 where neither shows the object."""
        found, truth = self.case.slices(answer.mask).slice(number), self._truth(number)
        union = np.count_nonzero(found | truth)
        return np.count_nonzero(found & truth) / union if union else 1.0

    def correct(self, given: GivenPrompts, number: int, answer: ProductAnswer | None) -> tuple[GivenPrompts, Actions]:
        """Correct a slice; return all prompts, and what it took."""
        truth = self._truth(number)
        if not truth.any():
            return given.without(number), Actions(looks=1, clicks=1)
        if self.strokes == "mask":
            painted = self.robot.paint(truth, self.case.files.id, number)
            return given.painting(number, painted), Actions(looks=1, masks=1)
        after, done, good = self._clicks(given, number, answer, times=MAX_CLICKS)
        return (after, done) if good is None else (after.painting(number, good), done + Actions(clicks=1))

    def _clicks(
        self, given: GivenPrompts, number: int, answer: ProductAnswer | None, *, times: int
    ) -> tuple[GivenPrompts, Actions, Mask | None]:
        """Click until the slice is good, looking at the answer after each click; return its mask if it is good."""
        truth, clicked = self._truth(number), np.zeros_like(self._truth(number))
        done = Actions(looks=1)
        for count in range(times):
            found = clicked & False if answer is None else self.case.slices(answer.mask).slice(number)
            if answer is not None and dice(found, truth) >= GOOD_SLICE:
                return given, done, found.copy()
            spacing = self.case.axis.pixel_spacing_mm(self.case.turn.geometry)
            seen = np.where(clicked, truth, found)
            click = self.robot.click(truth, seen, self.case.files.id, number, count, spacing=spacing)
            if click is None:
                break
            x, y = click.index
            done += Actions(clicks=1)
            if clicked[y, x]:
                break  # a slip onto an earlier click: the annotator leaves it
            clicked[y, x] = True
            given = given.clicking(number, x, y, click.positive)
            if count + 1 < times:
                answer = self.ask(given)
        return given, done, None

    def _truth(self, number: int) -> Mask:
        return self.case.slices(self.case.truth).slice(number)


def _point(case: TruthCase, number: int, x: int, y: int, positive: bool) -> Point:
    ijk = slice_to_source_ijk(case.turn, case.axis, n=number, xy=np.array([[x, y]]))[0].tolist()
    return Point(tuple(ijk), positive)
