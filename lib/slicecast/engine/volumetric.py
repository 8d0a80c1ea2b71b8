"""From clicks to a volume with a network that sees a cube of the scan at a time (SAM-Med3D, CT-SAM3D).

A cube is cut around the first click. All clicks inside go to the network one after the other, each step with the answer
of the one before. A click on the object outside opens a cube of its own. Where the object reaches a face of a cube, the
next one, half a cube further, is opened with a click of its own: where the network proposes one (CT-SAM3D's cross-patch
prompt), else the innermost voxel of the object in what both cubes see. Cubes are blended, their middles counting most.

The answer depends on the scan and the list of clicks alone, so taking a click back leaves no trace. Voxels are
(k, j, i) of the isotropic grid.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from slicecast.engine.caches import Lru
from slicecast.engine.ports import Embedding
from slicecast.errors import Cancelled
from slicecast.volume import Geometry, Window
from slicecast.volume.isotropic import Isotropic

Voxel = tuple[int, int, int]

MOST_CUBES = 27  # Cubes of one object: three along each axis
FACE_VOXELS = 2  # An object that comes this near to a face goes on beyond it
LEAST_HEAT = 0.3  # Heat, of a peak of 1, below which a neighbouring cube is taken not to show the object
FAR_LOGIT = -20.0  # Of what no cube shows

SEED_BYTES = 256  # About what a voxel in the cache takes
ANSWER_SIZES = 3
"""What an answer that is kept takes, in sizes of its logits: what the next step is fed is of their size."""


@dataclass(frozen=True, slots=True, eq=False)
class CubeAnswer:
    """A network's answer in one cube."""

    logits: NDArray[np.float32]  # (S, S, S) float32
    predicted_iou: float  # its own estimate; may lie outside [0, 1]
    previous: Any  # what the next step in this cube is fed; opaque


class VolumePredictor(Protocol):
    """A promptable network for cubes of an isotropic grid.

    Attributes:
        side: S, voxels along each side of a cube.
        outside: value of what lies outside the scan; None: the scan mirrored at its faces.
        scales: multiples of the grid's spacing at which an object may be looked at.
        fingerprint: changes whenever answers may change.
    """

    side: int
    outside: float | None
    scales: tuple[float, ...]
    fingerprint: str

    def grid(self, stored: Geometry, scale: float = 1.0) -> Geometry:
        """Return the isotropic grid of a scan, so many times as coarse as the usual one."""
        ...

    def encode(self, cube: NDArray[np.float32], window: Window) -> Embedding:
        """Encode a cube (S, S, S) of the scan's own values."""
        ...

    def segment(
        self, embedding: Embedding, points: NDArray[np.int64], positive: NDArray[np.bool_], previous: Any
    ) -> CubeAnswer:
        """Answer all clicks so far: points (P, 3) voxels (k, j, i) of the cube; `previous` None at the first."""
        ...

    def propose(self, own: Embedding, mask: NDArray[np.bool_], neighbour: Embedding) -> NDArray[np.float32] | None:
        """Return a heat map (S, S, S) of where to click in a neighbouring cube; None from a network that cannot."""
        ...


@dataclass(frozen=True, slots=True)
class GridClick:
    """A voxel on the object, or beside it."""

    voxel: Voxel
    positive: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class ObjectField:
    """An object's logits in a box of a grid; outside it is not there."""

    grid: Geometry
    start: Voxel  # the box's first voxel
    logits: NDArray[np.float32]  # float32 [k, j, i]
    predicted_iou: float  # mean over the cubes
    cubes: int  # how many were looked at


@dataclass(eq=False)
class _Cube:
    start: Voxel
    embedding: Embedding
    clicks: list[GridClick]
    answer: CubeAnswer | None = None

    def inside(self, voxel: Sequence[int], side: int) -> bool:
        return all(0 <= v - s < side for v, s in zip(voxel, self.start, strict=True))


@dataclass(eq=False)
class VolumeTracker:
    """What segmenting a scan takes."""

    predictor: VolumePredictor  # the network
    scan: Isotropic  # on the predictor's grid
    window: Window  # grey values, for a network that goes by them
    key: str  # names the scan's content, how it lies, and the window
    cache: Lru[Any]  # encoded cubes, and their answers
    progress: Callable[[int, str], None] = lambda done, what: None  # called with the cubes answered so far
    cancelled: Callable[[], bool] = lambda: False  # asked before each step
    encoded: int = field(default=0, init=False)
    encode_s: float = field(default=0.0, init=False)
    answered: int = field(default=0, init=False)

    def segment(self, clicks: Sequence[GridClick]) -> ObjectField:
        """Segment one object; raises Cancelled if the user stopped it."""
        cubes = [self._answer(cube) for cube in self._clicked_cubes(clicks)]
        for cube in cubes:  # grows while it is walked through
            for start in self._beyond(cube, [c.start for c in cubes]):
                if len(cubes) < MOST_CUBES and (further := self._extended(cube, start, clicks)) is not None:
                    cubes.append(further)
        return _blended(cubes, self.predictor.side, self.scan.grid)

    def doubt(self, click: GridClick) -> float:
        """Return how unsure the network is of its answer to one click on the object: voxels in doubt over its own."""
        (cube,) = self._clicked_cubes([click])
        answer = self._answer(cube).answer
        assert answer is not None
        doubt = 1 / (1 + np.exp(np.abs(answer.logits)))  # 0.5 where the probability is 0.5, 0 where it is 0 or 1
        return float(doubt.sum()) / max(int((answer.logits > 0).sum()), 1)

    def _clicked_cubes(self, clicks: Sequence[GridClick]) -> list[_Cube]:
        """Open a cube around the first click on the object, and around each that lies in none; share all among them."""
        cubes: list[_Cube] = []
        for click in clicks:
            if click.positive and not any(cube.inside(click.voxel, self.predictor.side) for cube in cubes):
                cubes.append(self._opened(self._around(click.voxel)))
        for cube in cubes:
            cube.clicks = [click for click in clicks if cube.inside(click.voxel, self.predictor.side)]
        return cubes

    def _around(self, voxel: Voxel) -> Voxel:
        half = self.predictor.side // 2
        return voxel[0] - half, voxel[1] - half, voxel[2] - half

    def _opened(self, start: Voxel) -> _Cube:
        key = (self.key, self.predictor.fingerprint, start)
        found = self.cache.find([key])
        if key not in found:
            self._check()
            began = time.perf_counter()
            found[key] = self.predictor.encode(self.scan.patch(start, self.predictor.side), self.window)
            self.encode_s += time.perf_counter() - began
            self.cache.keep(key, found[key], nbytes=found[key].nbytes)
            self.encoded += 1
        return _Cube(start, found[key], [])

    def _answer(self, cube: _Cube) -> _Cube:
        """Give a cube its clicks one by one; those before the first one on the object come together with it."""
        points = np.array([np.subtract(c.voxel, cube.start) for c in cube.clicks], dtype=np.int64)
        positive = np.array([c.positive for c in cube.clicks])
        for count in range(int(positive.argmax()) + 1, len(positive) + 1):
            cube.answer = self._step(cube, points[:count], positive[:count])
        self.progress(self.answered, "cubes")
        return cube

    def _step(self, cube: _Cube, points: NDArray[np.int64], positive: NDArray[np.bool_]) -> CubeAnswer:
        """Answer a cube's clicks so far, upon its answer to those before; known from an earlier request, or asked."""
        key = (self.key, self.predictor.fingerprint, cube.start, points.tobytes(), positive.tobytes())
        known = self.cache.find([key]).get(key)
        if known is None:
            self._check()
            previous = None if cube.answer is None else cube.answer.previous
            known = self.predictor.segment(cube.embedding, points, positive, previous)
            self.cache.keep(key, known, nbytes=ANSWER_SIZES * known.logits.nbytes)
            self.answered += 1
        return known

    def _beyond(self, cube: _Cube, known: list[Voxel]) -> Iterator[Voxel]:
        """Yield where the cubes begin into which the object goes on from this one, unless it was looked at there."""
        assert cube.answer is not None
        mask, side = cube.answer.logits > 0, self.predictor.side
        for axis in range(3):
            for sign in (-1, 1):
                near = np.take(mask, range(FACE_VOXELS) if sign < 0 else range(side - FACE_VOXELS, side), axis=axis)
                start = tuple(s + (sign * side // 2 if n == axis else 0) for n, s in enumerate(cube.start))
                face = cube.start[axis] if sign < 0 else cube.start[axis] + side
                in_scan = 0 < face < self.scan.grid.shape_kji[axis]
                if near.any() and in_scan and all(np.abs(np.subtract(start, k)).max() > side // 4 for k in known):
                    yield start  # type: ignore[misc]

    def _extended(self, cube: _Cube, start: Voxel, clicks: Sequence[GridClick]) -> _Cube | None:
        """Return the answered cube that begins there; None where the network does not expect the object in it."""
        further, side = self._opened(start), self.predictor.side
        further.clicks = [click for click in clicks if further.inside(click.voxel, side)]
        if not any(click.positive for click in further.clicks):
            seed = self._seed(cube, further)
            if seed is None:
                return None
            further.clicks.insert(0, GridClick(seed))
        return self._answer(further)

    def _seed(self, cube: _Cube, further: _Cube) -> Voxel | None:
        """Return the voxel to click in a further cube, known from an earlier request, or asked for; None for none."""
        key = (self.key, self.predictor.fingerprint, cube.start, *cube.clicks, further.start)
        found = self.cache.find([key])
        if key not in found:
            found[key] = self.cache.keep(key, self._proposed(cube, further), nbytes=SEED_BYTES)
        return found[key]

    def _proposed(self, cube: _Cube, further: _Cube) -> Voxel | None:
        assert cube.answer is not None
        mask = cube.answer.logits > 0
        heat = self.predictor.propose(cube.embedding, mask, further.embedding)
        if heat is not None:
            peak = np.unravel_index(int(heat.argmax()), heat.shape)
            return _moved(peak, further.start) if heat[peak] >= LEAST_HEAT else None
        side = self.predictor.side
        apart = np.subtract(further.start, cube.start)
        low = np.maximum(0, apart)
        shared = np.pad(mask[tuple(slice(a, min(side, d + side)) for a, d in zip(low, apart, strict=True))], 1)
        if not shared.any():
            return None
        deepest = np.unravel_index(int(ndimage.distance_transform_edt(shared).argmax()), shared.shape)
        return _moved(deepest + low - 1, cube.start)

    def _check(self) -> None:
        if self.cancelled():
            raise Cancelled("The request was cancelled.")


def _moved(voxel: Sequence[Any] | NDArray, start: Voxel) -> Voxel:
    return tuple(int(v) + s for v, s in zip(voxel, start, strict=True))  # type: ignore[return-value]


def _blended(cubes: Sequence[_Cube], side: int, grid: Geometry) -> ObjectField:
    """Average the cubes' logits where they overlap; a voxel counts the less, the nearer it is to its cube's face."""
    starts = np.array([cube.start for cube in cubes])
    low = starts.min(axis=0)
    shape = starts.max(axis=0) - low + side
    ramp = np.minimum(np.arange(side) + 0.5, side - 0.5 - np.arange(side)).astype(np.float32)
    weight = np.minimum(np.minimum(ramp[:, None, None], ramp[None, :, None]), ramp[None, None, :])
    total, weights = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
    answers = [cube.answer for cube in cubes if cube.answer is not None]
    for start, answer in zip(starts - low, answers, strict=True):
        place = tuple(slice(s, s + side) for s in start)
        total[place] += weight * answer.logits
        weights[place] += weight
    logits = np.where(weights > 0, total / np.maximum(weights, 1e-6), np.float32(FAR_LOGIT))
    iou = float(np.mean([answer.predicted_iou for answer in answers]))
    return ObjectField(grid, _moved(low, (0, 0, 0)), logits, iou, len(cubes))
