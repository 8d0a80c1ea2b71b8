"""What the model makes of a volume that nobody has labelled: what it looks like, and how unsure it is of it.

The automatic prompt comes from a labelled case, the support: three of its slices are the model's memory, and what they
call up in the other volume is boxed (`slicecast.engine.support`). Five passes start from those boxes
(`slicecast.labelling.scoring.passes`); their scores are worked out by `slicecast.active.uncertainty`.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import diskcache
import numpy as np
from numpy.typing import NDArray

from slicecast.active.uncertainty import cycle_error, disagreement, object_entropy
from slicecast.engine.caches import EmbeddingCache, name_of
from slicecast.engine.crop_window import whole_view
from slicecast.engine.options import EngineOptions
from slicecast.engine.postprocess import slice_confidence
from slicecast.engine.support import Extent, Page, learn_pages, recall
from slicecast.engine.tracks import Tracker
from slicecast.inference.predictors import QueuedPredictor
from slicecast.inference.studies import Study
from slicecast.labelling.landmarks import find_body
from slicecast.labelling.scoring.passes import AugmentationPass, Boxes, object_scores, region, run_passes
from slicecast.volume import SliceAxis, SliceStack, choose_axis

LOOKS = 8
"""Slices of which a volume's looks are the mean."""

PAGES = (0.25, 0.5, 0.75)
"""Where along an object its support slices lie."""

MAX_STRUCTURES = 4
"""Structures that are scored; the smallest ones are, because they are lost first."""

CACHE_BYTES = 1 << 27
"""Of encoded slices: a volume is not looked at again."""

QUICK = EngineOptions(zoom_rounds=0)
"""Windows do not grow: a second propagation costs twice, and the passes are only compared with each other."""

VERSION = 1
"""Part of the name of what is kept; changes with the meaning of the scores."""


@dataclass(frozen=True, slots=True, eq=False)
class Support:
    """A labelled case as the model remembers it.

    Args:
        name: of the case.
        pages: remembered slices of each structure.
        truth: its label, bool [k, j, i] canonical, by structure.
        study: its scan.
        embedding: what it looks like.
    """

    name: str
    pages: Mapping[str, list[Page]]
    truth: Mapping[str, NDArray[np.bool_]]
    study: Study
    embedding: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class VolumeScores:
    """How unsure the model is of a volume.

    Args:
        scores: by name, the mean over the structures.
        by_structure: the same of each structure.
        support: the labelled case that the prompt came from.
        seconds: that it took.
        masks: what the jittered pass found, bool [k, j, i] canonical, by structure.
    """

    scores: Mapping[str, float]
    by_structure: Mapping[str, Mapping[str, float]]
    support: str
    seconds: float
    masks: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)


class VolumeScorer:
    """Looks at volumes; keeps nothing but a few encoded slices. For one thread.

    Args:
        predictor: the model; every call of it is a step in its queue.
        options: of the engine. Default: QUICK.
        cancelled: asked before each batch.
        seed: of the chance that moves boxes.
    """

    def __init__(
        self,
        predictor: QueuedPredictor,
        *,
        options: EngineOptions | None = None,
        cancelled: Callable[[], bool] = lambda: False,
        seed: int = 0,
    ) -> None:
        self._predictor, self._options, self._cancelled = predictor, options or QUICK, cancelled
        self._cache = EmbeddingCache(CACHE_BYTES)
        self._seed = seed

    def embed(self, study: Study) -> NDArray[np.float32] | None:
        """Return what a volume looks like, (D,); None where the model cannot say.

        Raises:
            Cancelled: it is not wanted any more.
        """
        tracker = self.tracker(study, choose_axis(study.volume.geometry))
        count = tracker.frames.count
        numbers = sorted({int((n + 0.5) * count / LOOKS) for n in range(LOOKS)})
        view = whole_view(tracker.frames)
        pooled = self._predictor.pool(tracker.embed([(number, view) for number in numbers]))
        return None if pooled is None else pooled.mean(axis=0)

    def learn(self, name: str, study: Study, label: NDArray[np.integer], values: Mapping[str, int]) -> Support:
        """Remember a labelled case.

        Args:
            label: whole numbers [k, j, i], canonical, on the scan's grid.
            values: name of each structure to its number; 0 for everything that is labelled.

        Raises:
            Cancelled: it is not wanted any more.
        """
        truth = {key: label == value if value else label > 0 for key, value in values.items()}
        sizes = {key: int(mask.sum()) for key, mask in truth.items() if mask.any()}
        kept = sorted(sizes, key=lambda key: (sizes[key], key))[:MAX_STRUCTURES]
        axis = choose_axis(study.volume.geometry)
        tracker, extent = self.tracker(study, axis), extent_of(study, axis)
        margin = self._options.zoom_margin
        pages = {k: learn_pages(tracker, _slices(truth[k], axis), extent, margin=margin) for k in kept}
        return Support(name, pages, {key: truth[key] for key in kept}, study, self.embed(study))

    def prompt(self, study: Study, support: Support) -> dict[str, Boxes]:
        """Return boxes of each structure of the support, by slice number.

        Where the model finds nothing of a likely size, the box is put where the support has it.

        Raises:
            Cancelled: it is not wanted any more.
        """
        axis = choose_axis(support.study.volume.geometry)
        tracker, extent = self.tracker(study, axis), extent_of(study, axis)
        found = {name: recall(tracker, pages, extent) for name, pages in support.pages.items()}
        return {name: {r.slice: r.box_xyxy for r in seen} for name, seen in found.items()}

    def score(self, study: Study, support: Support) -> VolumeScores:
        """Say how unsure the model is of a volume.

        Raises:
            Cancelled: it is not wanted any more.
        """
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
        """Carry what was found back to the support, and compare with its truth."""
        axis = choose_axis(support.study.volume.geometry)
        if not mask.any():
            return 1.0
        margin = self._options.zoom_margin
        pages = learn_pages(self.tracker(study, axis), _slices(mask, axis), extent_of(study, axis), margin=margin)
        back = recall(self.tracker(support.study, axis), pages, extent_of(support.study, axis))
        truth = SliceStack(support.truth[name], axis)
        return cycle_error([r.mask for r in back], [truth.slice(r.slice) for r in back])

    def _axes(self, study: Study, support: Support) -> tuple[SliceAxis, SliceAxis]:
        """Return the support's slice axis, and the one of the others with the thicker slices."""
        first = choose_axis(support.study.volume.geometry)
        geometry = study.volume.geometry
        others = [axis for axis in SliceAxis if axis != first and geometry.size_ijk[axis] > 1]
        return first, max(others, key=lambda axis: geometry.spacing_mm[axis], default=first)

    def tracker(self, study: Study, axis: SliceAxis) -> Tracker:
        """Return the surroundings of one propagation through a volume."""
        frames = study.frames(axis, study.window("auto"))
        return Tracker(self._predictor, frames, self._cache, self._options, cancelled=self._cancelled)


def extent_of(study: Study, axis: SliceAxis) -> Extent:
    """Return where the body lies in a volume's slices."""
    body, geometry = find_body(study.volume), study.volume.geometry
    corners = np.stack([geometry.world_to_index(body.low_mm), geometry.world_to_index(body.high_mm)])
    order = [*axis.in_plane, int(axis)]
    return np.sort(corners, axis=0)[:, order]


def _slices(mask: NDArray[np.bool_], axis: SliceAxis) -> list[tuple[int, NDArray[np.bool_]]]:
    """Return a few slices that show an object, with their masks."""
    stack = SliceStack(mask, axis)
    shown = np.flatnonzero(mask.any(axis=tuple(n for n in range(3) if n != 2 - axis)))
    numbers = sorted({int(shown[round(share * (len(shown) - 1))]) for share in PAGES})
    return [(number, np.ascontiguousarray(stack.slice(number))) for number in numbers]


def _of_passes(passes: Mapping[str, AugmentationPass], shape: tuple[int, ...]) -> dict[str, float]:
    """Work out the scores of one structure."""
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
class Known:
    """What is known of a volume.

    Args:
        content: names its voxels.
        flaw: what is wrong with them; empty for nothing.
        embedding: (D,) what it looks like; None where it was not looked at.
        scores: by name; empty where it was not scored.
        by_structure: the same of each structure.
        support: the labelled case that the scores came from.
        round: of the campaign, when it was scored.
    """

    content: str
    flaw: str = ""
    embedding: NDArray[np.float32] | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    by_structure: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    support: str = ""
    round: int = -1

    def to_bytes(self) -> bytes:
        """Return it as JSON."""
        told = {name: getattr(self, name) for name in ("content", "flaw", "scores", "by_structure", "support", "round")}
        looks = None if self.embedding is None else [float(value) for value in self.embedding]
        return json.dumps({**told, "embedding": looks}).encode()

    @staticmethod
    def of_bytes(data: bytes) -> "Known":
        """Return what :meth:`to_bytes` wrote."""
        told = json.loads(data)
        looks = told.pop("embedding")
        return Known(**told, embedding=None if looks is None else np.array(looks, dtype=np.float32))


class ScoreStore:
    """A folder of JSON texts; safe between threads and processes. Nothing in it is executed.

    Args:
        folder: made where it is missing.
        model: fingerprint of the model that looks.
    """

    def __init__(self, folder: Path, model: str) -> None:
        self._files = diskcache.Cache(str(folder), eviction_policy="none")
        self._model = model

    def content_of(self, stamp: tuple) -> str | None:
        """Return the content of a file in this state; None when it was not read yet."""
        data = self._files.get(name_of("file", stamp))
        return data.decode() if isinstance(data, bytes) else None

    def load(self, content: str) -> Known | None:
        """Return what the model made of a volume; None when it has not looked."""
        data = self._files.get(name_of(VERSION, self._model, content))
        return Known.of_bytes(data) if isinstance(data, bytes) else None

    def keep(self, stamp: tuple, known: Known) -> None:
        """Keep what was found, and which file it was found in."""
        self._files.set(name_of("file", stamp), known.content.encode())
        self._files.set(name_of(VERSION, self._model, known.content), known.to_bytes())

    def close(self) -> None:
        """Close the files."""
        self._files.close()
