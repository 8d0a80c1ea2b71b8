"""The protocol of "Interactive 3D Medical Image Segmentation with SAM 2" (Shen et al., arXiv 2408.02635), with quirks.

What its published scripts do, and this repeats:

* Slices along the last stored axis, seen as (i, j); every label value is one object.
* Each slice is stretched between its own minimum and maximum to 8 bit and stored as JPEG. One of a single value gets 0.
* The clip goes from the first to the last *salient* slice (more than 256 voxels of the object), but without the last
  one. With a threshold of 0, five to nine slices are added at each end, at random.
* The prompt goes to the middle slice of the clip: its true mask, or clicks. A click lies deepest inside the largest
  error on that slice, in pixels; errors nowhere deeper than 1.42 are left alone. All clicks are sent again each time. A
  case with 100 voxels or fewer there is skipped, with clicks only.
* SAM 2's own predictor tracks to the end, then from the middle to the start in the same state: the way back sees what
  the way out remembered. With the prompt on slice 1, slice 0 is never visited.
* Dice over the slices that were visited, the prompted one included. Surface Dice with a tolerance of one voxel, on the
  slices in the order of the visits: from the middle to the end, then from the middle back.

Numbers of this protocol mean something else than those of ``fixed``; the two never share a table.
"""

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from monai.metrics.surface_dice import compute_surface_dice
from numpy.typing import NDArray
from scipy import ndimage

from slicecast.errors import InputError, PromptError
from slicecast.volume.metrics import as_batches, dice
from slicecast_lab.evaluation.cases import CaseFiles, TruthCase, read_case
from slicecast_lab.evaluation.provenance import peak_rss_mib
from slicecast_lab.evaluation.run import Progress, logger
from slicecast_lab.evaluation.settings import SeedSettings

MIN_CLICKED_VOXELS = 100
EXTRA_SLICES = (5, 10)  # Added at each end with a threshold of 0: from the first to below the second
MIN_DEPTH_PX = 1.42  # Errors that are nowhere deeper than this are left alone

NSD_TOLERANCE_VOXELS = 1.0

T = TypeVar("T")
Mask = NDArray[np.bool_]
Visits = list[tuple[int, NDArray[np.float32]]]


class TrackedClip(Protocol):
    """A clip that is being tracked; see ``slicecast_lab.evaluation.video.VideoClip``."""

    def click(self, frame: int, points_xy: Sequence[tuple[int, int]], labels: Sequence[int]) -> NDArray[np.float32]:
        """Give all clicks of a frame; return its logits (H, W)."""

    def paint(self, frame: int, mask: Mask) -> NDArray[np.float32]:
        """Give a frame's mask; return its logits (H, W)."""

    def propagate(self, *, start: int | None = None, reverse: bool = False) -> Visits:
        """Track to one end."""


class Tracks(Protocol):
    """What is measured: opens clips as SAM 2's video predictor does."""

    def open(self, frames: Sequence[NDArray[np.uint8]]) -> AbstractContextManager[TrackedClip]:
        """Load a clip of frames uint8 (H, W)."""


@dataclass(frozen=True, slots=True)
class SeedResult:
    """How one case went."""

    files: CaseFiles
    slices: tuple[int, int]  # half-open, as stored: the clip
    prompted: int  # slice of the clip, from 0
    clicks_used: int  # 0 for a mask
    visited: int  # slices that were tracked or prompted
    dice: float  # over them
    nsd: float  # on them in the order of the visits
    seconds: dict[str, float]  # load, prompt, forward, reverse


@dataclass(frozen=True, slots=True, eq=False)
class SeedEvaluation:
    """All cases of one evaluation; `skipped` says why, by case."""

    settings: SeedSettings
    results: tuple[SeedResult, ...]
    skipped: dict[str, str]
    peak_rss_mib: int


def evaluate_seed(
    cases: Sequence[CaseFiles],
    tracker: Tracks,
    settings: SeedSettings,
    *,
    progress: Progress = lambda done, total, name: None,
) -> SeedEvaluation:
    """Evaluate all cases; one that the protocol cannot use is skipped and listed with the reason."""
    results, skipped, rng = [], {}, np.random.default_rng(settings.seed)
    for done, files in enumerate(cases):
        progress(done, len(cases), files.id)
        try:
            results.append(evaluate_seed_case(read_case(files), tracker, settings, rng))
        except InputError as error:
            logger.warning("%s is skipped: %s", files.id, error)
            skipped[files.id] = str(error)
    progress(len(cases), len(cases), "")
    return SeedEvaluation(settings, tuple(results), skipped, peak_rss_mib())


def evaluate_seed_case(
    case: TruthCase, tracker: Tracks, settings: SeedSettings, rng: np.random.Generator
) -> SeedResult:
    """Evaluate one case; raises PromptError if no slice is salient, or the middle one shows too little to click on."""
    first, stop = clip_range(case.truth, salient=settings.salient, rng=rng)
    truth = [case.truth[k].T for k in range(first, stop)]
    middle = len(truth) // 2
    if settings.prompt == "clicks" and np.count_nonzero(truth[middle]) <= MIN_CLICKED_VOXELS:
        raise PromptError(f"The middle slice shows {MIN_CLICKED_VOXELS} voxels or fewer of the object.")
    frames = [to_frame(case.volume.array[k].T) for k in range(first, stop)]
    seconds: dict[str, float] = {}
    with ExitStack() as stack:
        clip = _timed(seconds, "load", lambda: stack.enter_context(tracker.open(frames)))
        used = _timed(seconds, "prompt", lambda: _prompt(clip, middle, truth[middle], settings))
        visits = _timed(seconds, "forward", clip.propagate)
        visits += _timed(seconds, "reverse", lambda: clip.propagate(start=max(middle - 1, 0), reverse=True))
    found = {frame: logits > 0 for frame, logits in visits}  # in the order of the visits
    answer, wanted = np.stack(list(found.values())), np.stack([truth[frame] for frame in found])
    nsd = plain_surface_dice(answer, wanted, tolerance=NSD_TOLERANCE_VOXELS)
    return SeedResult(case.files, (first, stop), middle, used, len(found), dice(answer, wanted), nsd, seconds)


def plain_surface_dice(found: Mask, truth: Mask, *, tolerance: float) -> float:
    """Return MONAI's surface Dice of two masks as published protocols use it: in voxels, each surface voxel equal."""
    if not (found.any() and truth.any()):
        return float(found.any() == truth.any())
    first, second = as_batches(found, truth)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*always_return_as_numpy", category=FutureWarning)
        return float(compute_surface_dice(first, second, [tolerance], include_background=True))


def clip_range(truth: Mask, *, salient: int, rng: np.random.Generator) -> tuple[int, int]:
    """Return the clip's half-open range of stored slices; the last salient slice is not in it.

    Raises:
        PromptError: no slice is salient, or only one, which leaves none.
    """
    shown = np.flatnonzero(np.count_nonzero(truth, axis=(1, 2)) > salient)
    if len(shown) == 0:
        raise PromptError(f"No slice shows more than {salient} voxels of the object.")
    first, stop = int(shown[0]), int(shown[-1])
    if not salient:
        first, stop = first - int(rng.integers(*EXTRA_SLICES)), stop + int(rng.integers(*EXTRA_SLICES))
    first, stop = max(first, 0), min(stop, len(truth))
    if stop <= first:
        raise PromptError(f"Only one slice shows more than {salient} voxels, and the protocol drops the last one.")
    return first, stop


def to_frame(plane: NDArray) -> NDArray[np.uint8]:
    """Stretch one slice between its own minimum and maximum."""
    values = plane.astype(np.float64)
    span = values.max() - values.min()
    return np.zeros(values.shape, np.uint8) if span == 0 else ((values - values.min()) / span * 255).astype(np.uint8)


def pole(region: Mask) -> tuple[float, tuple[int, int]]:
    """Return how deep the deepest pixel of an error lies in its 4-connected part, and the pixel as (x, y).

    The first of equals, in the order of the parts; a depth of 0 where no pixel is deeper than 1.42.
    """
    parts, count = ndimage.label(np.pad(region, 1))
    best, place = 0.0, (0, 0)
    for number in range(1, count + 1):
        depth = ndimage.distance_transform_edt(parts == number)
        y, x = np.unravel_index(depth.argmax(), depth.shape)
        if depth[y, x] > best:
            best, place = float(depth[y, x]), (int(x) - 1, int(y) - 1)
    return (best, place) if best > MIN_DEPTH_PX else (0.0, place)


def choose_click(truth: Mask, found: Mask) -> tuple[tuple[int, int], int] | None:
    """Return the next click (x, y) and its label, positive on a tie; None where no error is deep enough."""
    (missed, here), (excess, there) = pole(truth & ~found), pole(~truth & found)
    if not missed and not excess:
        return None
    return (here, 1) if missed >= excess else (there, 0)


def _prompt(clip: TrackedClip, middle: int, truth: Mask, settings: SeedSettings) -> int:
    """Prompt the middle slice; return the number of clicks."""
    if settings.prompt == "mask":
        clip.paint(middle, truth)
        return 0
    used = sum(1 for _ in _clicks(clip, middle, truth, settings.clicks))
    if not used:
        raise PromptError("The object is nowhere deep enough on the middle slice to click on it.")
    return used


def _clicks(clip: TrackedClip, middle: int, truth: Mask, times: int) -> Iterator[Mask]:
    found = np.zeros_like(truth)
    points: list[tuple[int, int]] = []
    labels: list[int] = []
    for _ in range(times):
        click = choose_click(truth, found)
        if click is None:
            return
        points.append(click[0])
        labels.append(click[1])
        found = clip.click(middle, points, labels) > 0
        yield found


def _timed(seconds: dict[str, float], name: str, call: Callable[[], T]) -> T:
    start = time.perf_counter()
    result = call()
    seconds[name] = time.perf_counter() - start
    return result
