"""The embedding of a volume without a label, the model's uncertainty scores for it, and their cache on disk.

The automatic prompt comes from a labelled case, the support: three of its slices become the model's memory, and what is
matched in the other volume is boxed (`slicecast.engine.support`). Five augmentation passes start from those boxes;
where they differ, the model is unsure (`slicecast.active.features` computes the scores):

| pass | propagates |
|---|---|
| forward | from the lowest prompted slice alone |
| backward | from the highest one alone |
| jittered | from all of them, their boxes moved by a few percent |
| mirrored | from the middle one alone, in slices mirrored left to right |
| across | along another axis, from the middle slice of what the jittered pass found |

The first three share their encoded slices and run in one batch.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import diskcache
import numpy as np
from numpy.typing import NDArray

from slicecast.active.features import cycle_error, disagreement, object_entropy
from slicecast.engine.caches import EmbeddingCache, key_of
from slicecast.engine.crop_window import Frames, whole_crop
from slicecast.engine.options import EngineOptions
from slicecast.engine.postprocess import ObjectResult, label_slices, slice_confidence
from slicecast.engine.propagation import segment
from slicecast.engine.support import Extent, SupportSlice, box_of, boxed, match_support, read_support
from slicecast.engine.tracks import Tracker
from slicecast.inference.predictors import QueuedPredictor
from slicecast.inference.studies import Study
from slicecast.labelling.landmarks import find_body
from slicecast.prompts import SlicePrompt
from slicecast.volume import SliceAxis, SliceStack, choose_axis

Boxes = Mapping[int, NDArray[np.float32]]  # An object's boxes (4,) xyxy by slice number
JITTER = 0.05  # By how much of its side each edge of a box is moved at most


@dataclass(frozen=True, slots=True, eq=False)
class AugmentationPass:
    """One pass's answers about one object."""

    axis: SliceAxis
    track: ObjectResult
    labels: Mapping[int, NDArray[np.uint8]]  # finished masks (H, W) by slice number
    mirrored: bool = False  # the slices are mirrored left to right

    def mask(self, shape_kji: tuple[int, ...]) -> NDArray[np.bool_]:
        """Return the mask, [k, j, i]."""
        mask = np.zeros(shape_kji, dtype=bool)
        stack = SliceStack(mask, self.axis)
        for number, pixels in self.labels.items():
            stack.slice(number)[...] = pixels[:, ::-1] if self.mirrored else pixels
        return mask


def run_passes(
    tracker: Tracker,
    across: Tracker | None,
    prompts: Mapping[str, Boxes],
    *,
    axes: tuple[SliceAxis, SliceAxis],
    rng: np.random.Generator,
) -> dict[str, dict[str, AugmentationPass]]:
    """Return the passes of each object by name.

    Args:
        across: of the same volume's slices along another axis; None for a volume of a single slice.
        prompts: boxes of each object, at least one.
        rng: moves the boxes.

    Raises:
        Cancelled: it is not wanted any more.
    """
    moved = {name: _moved(boxes, tracker.frames, rng) for name, boxes in prompts.items()}
    starts: dict[str, Mapping[str, Boxes]] = {
        "forward": {name: {min(boxes): boxes[min(boxes)]} for name, boxes in prompts.items()},
        "backward": {name: {max(boxes): boxes[max(boxes)]} for name, boxes in prompts.items()},
        "jittered": moved,
    }
    passes = _run(tracker, starts, axis=axes[0])
    mirror = replace_frames(tracker, mirrored(tracker.frames))
    flipped = {name: _flipped(boxes, tracker.frames) for name, boxes in prompts.items()}
    _merge(passes, _run(mirror, {"mirrored": flipped}, axis=axes[0], is_mirrored=True))
    if across is not None:
        _merge(passes, _run(across, {"across": _cuts(passes, tracker.frames, axes)}, axis=axes[1]))
    return passes


def mirrored(frames: Frames) -> Frames:
    """Return the same slices mirrored left to right."""
    return replace(frames, read=lambda number: frames.read(number)[:, ::-1], key=f"{frames.key}/mirrored")


def replace_frames(tracker: Tracker, frames: Frames) -> Tracker:
    """Return a tracker like this one, of other slices."""
    return Tracker(tracker.predictor, frames, tracker.cache, tracker.options, cancelled=tracker.cancelled)


def _run(
    tracker: Tracker, starts: Mapping[str, Mapping[str, Boxes]], *, axis: SliceAxis, is_mirrored: bool = False
) -> dict[str, dict[str, AugmentationPass]]:
    """Run several passes of several objects in one batch."""
    asked = {(which, name): boxes for which, given in starts.items() for name, boxes in given.items() if boxes}
    if not asked:
        return {}
    names = {f"{n}": key for n, key in enumerate(asked)}
    found = segment(tracker, {n: _prompts(asked[key]) for n, key in names.items()})
    passes: dict[str, dict[str, AugmentationPass]] = {}
    for n, (which, name) in names.items():
        track = found.objects[n]
        labels = label_slices(tracker, {n: track})
        passes.setdefault(name, {})[which] = AugmentationPass(axis, track, labels, is_mirrored)
    return passes


def _prompts(boxes: Boxes) -> list[SlicePrompt]:
    return [boxed(number, boxes[number]) for number in sorted(boxes)]


def _merge(passes: dict[str, dict[str, AugmentationPass]], more: Mapping[str, Mapping[str, AugmentationPass]]) -> None:
    for name, found in more.items():
        passes[name] |= found


def _moved(boxes: Boxes, frames: Frames, rng: np.random.Generator) -> Boxes:
    """Move each edge by chance; a box stays a box, within the slice."""
    limit = np.array([frames.shape_hw[1], frames.shape_hw[0]] * 2, dtype=np.float64) - 1
    found = {}
    for number in sorted(boxes):
        side = np.tile(boxes[number][2:] - boxes[number][:2], 2)
        found[number] = np.clip(boxes[number] + side * rng.uniform(-JITTER, JITTER, 4), 0, limit).astype(np.float32)
    return found


def _flipped(boxes: Boxes, frames: Frames) -> Boxes:
    last, middle = frames.shape_hw[1] - 1, sorted(boxes)[len(boxes) // 2]
    x0, y0, x1, y1 = boxes[middle]
    return {middle: np.array([last - x1, y0, last - x0, y1], np.float32)}


def _cuts(
    passes: Mapping[str, Mapping[str, AugmentationPass]], frames: Frames, axes: tuple[SliceAxis, SliceAxis]
) -> dict[str, Boxes]:
    """Return a box of each object on a slice along the second axis, as the jittered pass has it."""
    slice_, *plane = (int(axis) for axis in (axes[0], *axes[0].in_plane))
    size = {slice_: frames.count, plane[0]: frames.shape_hw[1], plane[1]: frames.shape_hw[0]}
    shape_kji = (size[2], size[1], size[0])
    return {name: _cut(own["jittered"].mask(shape_kji), axes[1]) for name, own in passes.items()}


def _cut(mask: NDArray[np.bool_], axis: SliceAxis) -> Boxes:
    stack = SliceStack(mask, axis)
    shown = np.flatnonzero(mask.any(axis=tuple(n for n in range(3) if n != 2 - axis)))
    numbers = [int(shown[len(shown) // 2])] if len(shown) else []
    return {number: box_of(stack.slice(number)) for number in numbers}


def object_scores(passes: Mapping[str, AugmentationPass]) -> NDArray[np.float64]:
    """Return the object scores of all slices that any pass reached without a prompt, (Z,) logits."""
    answers = chain.from_iterable(one.track.answers.values() for one in passes.values())
    return np.array([answer.object_score for answer in answers if not answer.prompted], dtype=np.float64)


def region(masks: Sequence[NDArray[np.bool_]]) -> tuple[slice, ...]:
    """Return the part of a volume [k, j, i] that holds all masks; everything where all are empty."""
    union = np.logical_or.reduce(masks)
    shown = [np.flatnonzero(union.any(axis=tuple(m for m in range(3) if m != n))) for n in range(3)]
    return tuple(slice(int(n[0]), int(n[-1]) + 1) if len(n) else slice(None) for n in shown)


EMBEDDED_SLICES = 8  # Evenly spaced slices whose mean is a volume's embedding
PAGES = (0.25, 0.5, 0.75)  # Where along an object its support slices lie, as shares of its extent
MAX_STRUCTURES = 4  # Structures that are scored: the smallest ones, because the model loses those first
CACHE_BYTES = 1 << 27  # Of encoded slices. Small, because a volume is read once and not again.

QUICK = EngineOptions(zoom_rounds=0)
"""Crop windows do not grow: a second propagation doubles the time, and the passes are only compared with each other."""

VERSION = 1  # Part of the cache keys; raise it when the meaning of the scores changes


@dataclass(frozen=True, slots=True, eq=False)
class Support:
    """A labelled case as the model's memory.

    Args:
        pages: support slices of each structure.
        truth: its label, bool [k, j, i] canonical, by structure.
        study: its scan.
        embedding: of its scan, (D,).
    """

    name: str
    slices: Mapping[str, list[SupportSlice]]
    truth: Mapping[str, NDArray[np.bool_]]
    study: Study
    embedding: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class VolumeScores:
    """Uncertainty scores of a volume."""

    scores: Mapping[str, float]  # mean over the structures, by name of the score
    by_structure: Mapping[str, Mapping[str, float]]
    support: str  # name of the labelled case that the prompt came from
    seconds: float  # time they took
    # of the jittered pass, bool [k, j, i] canonical, by structure
    masks: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)


class VolumeScorer:
    """Embeds and scores volumes; holds only a few encoded slices. Not safe between threads.

    Args:
        predictor: the model; every call is a step in the device queue.
        cancelled: asked before each batch.
        seed: of the jitter of boxes.
    """

    def __init__(
        self,
        predictor: QueuedPredictor,
        *,
        cancelled: Callable[[], bool] = lambda: False,
        seed: int = 0,
    ) -> None:
        self._predictor, self._cancelled = predictor, cancelled
        self._cache = EmbeddingCache(CACHE_BYTES)
        self._seed = seed

    def embed(self, study: Study) -> NDArray[np.float32] | None:
        """Return a volume's embedding, (D,) float32; None where the model has no pooled features.

        Raises:
            Cancelled: `cancelled` said so.
        """
        tracker = self.tracker(study, choose_axis(study.volume.geometry))
        count = tracker.frames.count
        numbers = sorted({int((n + 0.5) * count / EMBEDDED_SLICES) for n in range(EMBEDDED_SLICES)})
        crop = whole_crop(tracker.frames)
        pooled = self._predictor.pool(tracker.embed([(number, crop) for number in numbers]))
        return pooled.mean(axis=0)

    def learn(self, name: str, study: Study, label: NDArray[np.integer], values: Mapping[str, int]) -> Support:
        """Turn a labelled case into a support.

        Args:
            label: whole numbers [k, j, i], canonical, on the scan's grid.
            values: name of each structure to its number; 0 for everything that is labelled.

        Raises:
            Cancelled: `cancelled` said so.
        """
        truth = {key: label == value if value else label > 0 for key, value in values.items()}
        sizes = {key: int(mask.sum()) for key, mask in truth.items() if mask.any()}
        kept = sorted(sizes, key=lambda key: (sizes[key], key))[:MAX_STRUCTURES]
        axis = choose_axis(study.volume.geometry)
        tracker, extent = self.tracker(study, axis), extent_of(study, axis)
        margin = QUICK.zoom_margin
        slices = {k: read_support(tracker, _slices(truth[k], axis), extent, margin=margin) for k in kept}
        return Support(name, slices, {key: truth[key] for key in kept}, study, self.embed(study))

    def prompt(self, study: Study, support: Support) -> dict[str, Boxes]:
        """Return boxes of each structure of the support, by slice number of the study.

        Where the model matches nothing of a likely size, the support's own box is used.

        Raises:
            Cancelled: `cancelled` said so.
        """
        axis = choose_axis(support.study.volume.geometry)
        tracker, extent = self.tracker(study, axis), extent_of(study, axis)
        found = {name: match_support(tracker, slices, extent) for name, slices in support.slices.items()}
        return {name: {r.slice: r.box_xyxy for r in seen} for name, seen in found.items()}

    def score(self, study: Study, support: Support) -> VolumeScores:
        """Return the model's uncertainty scores of a volume; raises Cancelled if `cancelled` said so."""
        start = time.perf_counter()
        axes = self._axes(study, support)
        rng = np.random.default_rng(_seed(self._seed, study.digest))
        boxes = self.prompt(study, support)
        across = self.tracker(study, axes[1]) if axes[1] != axes[0] else None
        passes = run_passes(self.tracker(study, axes[0]), across, boxes, axes=axes, rng=rng)
        shape = study.volume.array.shape
        masks = {name: own["jittered"].mask(shape) for name, own in passes.items()}
        scores = {name: _of_passes(own, shape) for name, own in passes.items()}
        for name, own in scores.items():
            own["cycle"] = self._cycle(study, support, name, masks[name])
        mean = {key: float(np.mean([own[key] for own in scores.values()])) for key in next(iter(scores.values()))}
        return VolumeScores(mean, scores, support.name, time.perf_counter() - start, masks)

    def _cycle(self, study: Study, support: Support, name: str, mask: NDArray[np.bool_]) -> float:
        """Match the found mask back in the support, and compare with the support's label: 0 (as labelled) to 1."""
        axis = choose_axis(support.study.volume.geometry)
        if not mask.any():
            return 1.0
        margin = QUICK.zoom_margin
        slices = read_support(self.tracker(study, axis), _slices(mask, axis), extent_of(study, axis), margin=margin)
        back = match_support(self.tracker(support.study, axis), slices, extent_of(support.study, axis))
        truth = SliceStack(support.truth[name], axis)
        return cycle_error([r.mask for r in back], [truth.slice(r.slice) for r in back])

    def _axes(self, study: Study, support: Support) -> tuple[SliceAxis, SliceAxis]:
        """Return the support's slice axis, and of the other two the one with the thicker slices."""
        first = choose_axis(support.study.volume.geometry)
        geometry = study.volume.geometry
        others = [axis for axis in SliceAxis if axis != first and geometry.size_ijk[axis] > 1]
        return first, max(others, key=lambda axis: geometry.spacing_mm[axis], default=first)

    def tracker(self, study: Study, axis: SliceAxis) -> Tracker:
        """Return a tracker of the study's slices along an axis, with the scorer's cache."""
        frames = study.frames(axis, study.window("auto"))
        return Tracker(self._predictor, frames, self._cache, QUICK, cancelled=self._cancelled)


def extent_of(study: Study, axis: SliceAxis) -> Extent:
    """Return the corners of the body in a volume, (2, 3) voxels: in-plane x and y, slice."""
    body, geometry = find_body(study.volume), study.volume.geometry
    corners = np.stack([geometry.world_to_index(body.low_mm), geometry.world_to_index(body.high_mm)])
    order = [*axis.in_plane, int(axis)]
    return np.sort(corners, axis=0)[:, order]


def _slices(mask: NDArray[np.bool_], axis: SliceAxis) -> list[tuple[int, NDArray[np.bool_]]]:
    """Return the support slices of an object: number, mask (H, W)."""
    stack = SliceStack(mask, axis)
    shown = np.flatnonzero(mask.any(axis=tuple(n for n in range(3) if n != 2 - axis)))
    numbers = sorted({int(shown[round(share * (len(shown) - 1))]) for share in PAGES})
    return [(number, np.ascontiguousarray(stack.slice(number))) for number in numbers]


def _of_passes(passes: Mapping[str, AugmentationPass], shape: tuple[int, ...]) -> dict[str, float]:
    """Return the scores of one structure."""
    masks = [one.mask(shape) for one in passes.values()]
    part = region(masks)
    sure = [slice_confidence(a) for a in passes["jittered"].track.answers.values() if not a.prompted]
    return {
        "disagree": disagreement([mask[part] for mask in masks]),
        "object_entropy": object_entropy(object_scores(passes)),
        "confidence": float(np.mean(sure)) if sure else 0.0,
    }


def _seed(seed: int, digest: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}/{digest}".encode(), digest_size=8).digest(), "big")


@dataclass(frozen=True, slots=True, eq=False)
class CachedScores:
    """What is cached of a volume."""

    content: str  # digest of its voxels
    flaw: str = ""  # what is wrong with them; empty for nothing
    embedding: NDArray[np.float32] | None = None  # (D,) float32; None where it could not be embedded
    scores: Mapping[str, float] = field(default_factory=dict)  # by name; empty where it was not scored
    by_structure: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    support: str = ""  # name of the labelled case that the scores came from
    round: int = -1  # in which it was scored

    def to_bytes(self) -> bytes:
        """Return it as JSON."""
        fields = {
            name: getattr(self, name) for name in ("content", "flaw", "scores", "by_structure", "support", "round")
        }
        embedding = None if self.embedding is None else [float(value) for value in self.embedding]
        return json.dumps({**fields, "embedding": embedding}).encode()

    @staticmethod
    def of_bytes(data: bytes) -> "CachedScores":
        """Return what :meth:`to_bytes` wrote."""
        fields = json.loads(data)
        embedding = fields.pop("embedding")
        return CachedScores(**fields, embedding=None if embedding is None else np.array(embedding, dtype=np.float32))


class ScoreStore:
    """The cache on disk: JSON texts, so that reading it executes nothing. Safe between threads and processes.

    Args:
        folder: made where it is missing.
        model: fingerprint of the model that scores.
    """

    def __init__(self, folder: Path, model: str) -> None:
        self._files = diskcache.Cache(str(folder), eviction_policy="none")
        self._model = model

    def content_of(self, stamp: tuple) -> str | None:
        """Return the digest of a file's voxels, by its stamp (path, size, time); None when it was not read yet."""
        data = self._files.get(key_of("file", stamp))
        return data.decode() if isinstance(data, bytes) else None

    def load(self, content: str) -> CachedScores | None:
        """Return the cached scores of a volume by its digest, or None."""
        data = self._files.get(key_of(VERSION, self._model, content))
        return CachedScores.of_bytes(data) if isinstance(data, bytes) else None

    def keep(self, stamp: tuple, known: CachedScores) -> None:
        """Store scores, and which file they belong to."""
        self._files.set(key_of("file", stamp), known.content.encode())
        self._files.set(key_of(VERSION, self._model, known.content), known.to_bytes())

    def close(self) -> None:
        """Close the files."""
        self._files.close()
