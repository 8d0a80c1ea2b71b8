"""What simple methods make of the same painted slice: a score means little without them.

* ``copy``: the painted mask on every slice of the volume.
* ``copy-extent``: on every slice of the object's true extent, which no user knows beforehand.
* ``region``: SimpleITK's region growing from the painted voxels, within two standard deviations of their grey values,
  after curvature flow.
* ``levelset``: SimpleITK's threshold level set with its tutorial's settings, from the painted slice and its mask on the
  two beside it, through the same grey values, in the walker's window.
* ``walker``: scikit-image's random walker, in a window twice as wide as the object on its slice and as many
  millimetres to each side; the painted slice and the window's border are its seeds.

From several painted slices, and nothing beyond the outermost of them:

* ``linear``: signed distances of their outlines, interpolated linearly between neighbours. (ITK's morphological contour
  interpolation, 2.1.2 with ITK 5.4.7, ends the process with a damaged heap.)

Nothing here was tuned.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import random_walker

from slicecast.volume import choose_window, normalise
from slicecast_lab.evaluation.cases import TruthCase
from slicecast_lab.evaluation.settings import Baseline

REGION_DEVIATIONS = 2.0
GREY_LEVELS = 255  # The level set's speed is in grey levels; its settings are for such a range

LEVELSET_ITERATIONS = 1000
LEVELSET_RMS_ERROR = 0.02
LEVELSET_CURVATURE = 0.5

WALKER_BETA = 130  # scikit-image's default
PROB_TOLERANCE = 0.1  # How far scikit-image lets a probability stray before it warns; only the likelier label is used

WALKER_MAX_SIDE = 80
"""A larger window is thinned to this many voxels a side: the walker solves one equation for each voxel."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class BaselineInput:
    """What a baseline sees."""

    frames: NDArray[np.float32]  # windowed slices, float32 (N, H, W) in [0, 1]
    painted: Mask  # bool (H, W), the true mask of slice `number`
    number: int
    spacing_mm: tuple[float, float, float]  # between slices, rows and columns
    extent: tuple[int, int]  # first and last slice of the true object


def run_baseline(name: Baseline, case: TruthCase, number: int) -> Mask:
    """Segment a case from its true mask on canonical slice `number`; bool [k, j, i] as stored."""
    seen = _input_of(case, number)
    found = METHODS[name](seen)
    found[number] = seen.painted
    canonical = case.slices(case.truth).assemble(dict(enumerate(found)), dtype=bool)
    return np.ascontiguousarray(case.turn.to_source_array(canonical))


def run_interpolation(name: str, case: TruthCase, numbers: Sequence[int]) -> Mask:
    """Interpolate between the true masks of canonical slices; bool [k, j, i] as stored."""
    truth = case.slices(case.truth)
    painted = np.zeros((truth.count, *truth.slice(0).shape), dtype=bool)
    for number in numbers:
        painted[number] = truth.slice(number)
    found = INTERPOLATIONS[name](painted)
    canonical = truth.assemble(dict(enumerate(found)), dtype=bool)
    return np.ascontiguousarray(case.turn.to_source_array(canonical))


def interpolate_linearly(painted: Mask) -> Mask:
    """Fill the slices between painted ones by their signed distances; bool (N, H, W)."""
    found = painted.copy()
    for low, high in pairwise(np.flatnonzero(painted.any(axis=(1, 2)))):
        ends = [
            ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
            for mask in (painted[low], painted[high])
        ]
        for number in range(low + 1, high):
            weight = (number - low) / (high - low)
            found[number] = (1 - weight) * ends[0] + weight * ends[1] > 0
    return found


INTERPOLATIONS: dict[str, Callable[[Mask], Mask]] = {"linear": interpolate_linearly}


def copy_everywhere(seen: BaselineInput) -> Mask:
    """Copy the painted mask to every slice."""
    return np.repeat(seen.painted[None], len(seen.frames), axis=0)


def copy_within_extent(seen: BaselineInput) -> Mask:
    """Copy the painted mask to the slices that truly show the object."""
    found = np.zeros(seen.frames.shape, dtype=bool)
    found[seen.extent[0] : seen.extent[1] + 1] = seen.painted
    return found


def grow_region(seen: BaselineInput) -> Mask:
    """Grow from the painted voxels through similar grey values."""
    image = sitk.GetImageFromArray(seen.frames)
    image.SetSpacing(seen.spacing_mm[::-1])
    smooth = sitk.CurvatureFlow(image, timeStep=0.0625, numberOfIterations=5)
    values = sitk.GetArrayViewFromImage(smooth)[seen.number][seen.painted]
    reach = REGION_DEVIATIONS * float(values.std())
    seeds = [(int(x), int(y), seen.number) for y, x in np.argwhere(seen.painted)]
    low, high = float(values.mean()) - reach, float(values.mean()) + reach
    return sitk.GetArrayFromImage(sitk.ConnectedThreshold(smooth, seeds, low, high)) == 1


def evolve_levelset(seen: BaselineInput) -> Mask:
    """Let a surface grow from the painted slice while grey values are similar, and stay smooth."""
    found = np.zeros(seen.frames.shape, dtype=bool)
    window = tuple(_window(seen))
    greys = seen.frames * np.float32(GREY_LEVELS)
    image = sitk.GetImageFromArray(greys[window])
    start = np.zeros(seen.frames.shape, dtype=np.uint8)
    start[max(seen.number - 1, 0) : seen.number + 2] = seen.painted  # a sheet of one slice has no inside to grow
    values = greys[seen.number][seen.painted]
    reach = max(REGION_DEVIATIONS * float(values.std()), float(np.finfo(np.float32).eps))
    surface = sitk.GetImageFromArray(start[window])
    for item in (image, surface):
        item.SetSpacing(seen.spacing_mm[::-1])
    grow = sitk.ThresholdSegmentationLevelSetImageFilter()
    grow.SetLowerThreshold(float(values.mean()) - reach)
    grow.SetUpperThreshold(float(values.mean()) + reach)
    grow.SetMaximumRMSError(LEVELSET_RMS_ERROR)
    grow.SetNumberOfIterations(LEVELSET_ITERATIONS)
    grow.SetCurvatureScaling(LEVELSET_CURVATURE)
    grow.SetPropagationScaling(1.0)
    grow.ReverseExpansionDirectionOn()
    distance = sitk.SignedMaurerDistanceMap(surface, insideIsPositive=True, squaredDistance=False, useImageSpacing=True)
    found[window] = sitk.GetArrayFromImage(grow.Execute(distance, image)) > 0
    return found


def walk_randomly(seen: BaselineInput) -> Mask:
    """Label each voxel by where a random walker from it would arrive first."""
    found = np.zeros(seen.frames.shape, dtype=bool)
    window = _window(seen)
    steps = [-(-(part.stop - part.start) // WALKER_MAX_SIDE) for part in window]
    # Of each axis every steps-th voxel, such that the painted slice is among them.
    window[0] = slice(window[0].start + (seen.number - window[0].start) % steps[0], window[0].stop)
    thin = tuple(slice(part.start, part.stop, step) for part, step in zip(window, steps, strict=True))
    frames, painted = seen.frames[thin], seen.painted[thin[1:]]
    seeds = _seeds(frames.shape, painted, (seen.number - window[0].start) // steps[0])
    spacing = [mm * step for mm, step in zip(seen.spacing_mm, steps, strict=True)]
    labels = random_walker(
        frames,
        seeds,
        beta=WALKER_BETA,
        mode="cg_j",
        tol=1e-4,
        prob_tol=PROB_TOLERANCE,
        spacing=np.array(spacing) / min(spacing),
    )
    for axis, step in enumerate(steps):
        labels = np.repeat(labels, step, axis=axis)
    place = tuple(slice(part.start, part.stop) for part in window)
    found[place] = labels[tuple(slice(0, part.stop - part.start) for part in window)] == OBJECT
    return found


OBJECT, BACKGROUND = 1, 2  # Seeds of the walker; 0 is to be found


def _seeds(shape: tuple[int, ...], painted: Mask, number: int) -> NDArray[np.int32]:
    seeds = np.zeros(shape, dtype=np.int32)
    seeds[:, [0, -1], :] = seeds[:, :, [0, -1]] = BACKGROUND
    seeds[number] = np.where(painted, OBJECT, BACKGROUND)
    return seeds


def _window(seen: BaselineInput) -> list[slice]:
    """Return the slices, rows and columns the walker may use."""
    rows, columns = np.flatnonzero(seen.painted.any(axis=1)), np.flatnonzero(seen.painted.any(axis=0))
    sides = [places[-1] - places[0] + 1 for places in (rows, columns)]
    reach = [max(2, side // 2) for side in sides]
    far = max(side * mm for side, mm in zip(sides, seen.spacing_mm[1:], strict=True)) / seen.spacing_mm[0]
    spans = [(seen.number - round(far), seen.number + round(far) + 1)]
    spans += [(p[0] - r, p[-1] + 1 + r) for p, r in zip((rows, columns), reach, strict=True)]
    return [
        slice(max(0, int(start)), min(size, int(stop)))
        for (start, stop), size in zip(spans, seen.frames.shape, strict=True)
    ]


METHODS: dict[Baseline, Callable[[BaselineInput], Mask]] = {
    "copy": copy_everywhere,
    "copy-extent": copy_within_extent,
    "region": grow_region,
    "levelset": evolve_levelset,
    "walker": walk_randomly,
}


def _input_of(case: TruthCase, number: int) -> BaselineInput:
    window = choose_window(case.volume)
    stack = case.slices(case.volume.array)
    width, height = case.axis.pixel_spacing_mm(case.turn.geometry)
    return BaselineInput(
        frames=np.stack([normalise(stack.slice(n), window) for n in range(stack.count)]),
        painted=np.ascontiguousarray(case.slices(case.truth).slice(number)),
        number=number,
        spacing_mm=(case.turn.geometry.spacing_mm[case.axis], height, width),
        extent=case.extent,
    )
