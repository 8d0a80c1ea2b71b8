"""Pre-annotations: masks of images without a label, made in the background from images that have one.

After a label is submitted, the next images get a mask under the tag `original`: by the campaign's automatic network
where there is one (`finetuning/automatic.py`). Else a landmark of each structure is transferred from the labelled image
and becomes a click from which the model segments. Slicer loads the mask with Next Sample; the strategy `confidence`
reads the model's confidence in it.

A landmark is a place in the body, as shares of its width, depth and height, and a brightness. In the other scan it is
looked for around that place, where the brightness fits best. No registration, no model: a start for one, not a result.
"""

import logging
import os
import queue
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from monailabel.interfaces.datastore import Datastore
from scipy import ndimage
from skimage.filters import threshold_otsu

from slicecast.errors import SlicecastError
from slicecast.inference.segment import SegmentRequest, SegmentService
from slicecast.inference.studies import Study
from slicecast.labelling.finetuning.automatic import MODEL as AUTOMATIC
from slicecast.labelling.finetuning.automatic import AutomaticModel, AutomaticModels
from slicecast.labelling.store.labels import FINAL, ORIGINAL, read_final_label
from slicecast.labelling.tasks.answer import write_answer
from slicecast.labelling.tasks.request import Clicks, InferRequest, number_labels
from slicecast.prompts.model import IJK
from slicecast.volume import Geometry, Volume, choose_window, normalise, read_volume, write_mask, write_volume
from slicecast.volume.windowing import looks_like_ct

BODY_VOXELS = 64
"""Voxels per axis to which a scan is thinned out before its body is found."""
SMOOTH_MM = 2.0
"""Standard deviation of the smoothing before brightness is compared."""
LEAST_REACH_MM, REACH_RADII = 20.0, 2.0
"""A landmark is searched for within this distance of its expected place, or so many of its radii, whichever is more."""
MOST_SPREADS = 2.0
"""A voxel is no candidate if its brightness is off by more than so many standard deviations of the structure's own."""
LEAST_SPREAD = 0.05
"""Lower bound of a structure's standard deviation of brightness (0 to 1): a uniform structure would match nothing."""
ALIKE = 1.5
"""Two bodies whose sizes differ by this factor along any axis do not show the same part of the body."""


@dataclass(frozen=True, slots=True)
class Body:
    """The box around the body.

    Args:
        low_mm, high_mm: corners, LPS.
        is_ct: whether the numbers are Hounsfield units.
    """

    low_mm: np.ndarray
    high_mm: np.ndarray
    is_ct: bool

    def resembles(self, other: "Body") -> bool:
        """Tell whether both show the same part of a body in the same kind of scan, as far as sizes tell."""
        ratio = (self.high_mm - self.low_mm) / np.maximum(other.high_mm - other.low_mm, 1e-6)
        return self.is_ct == other.is_ct and bool((ratio < ALIKE).all() and (ratio > 1 / ALIKE).all())


@dataclass(frozen=True, slots=True)
class Landmark:
    """A voxel well inside a structure.

    Args:
        share: its place between the body's corners, 0 to 1 for x, y, z.
        radius_mm: its distance from the structure's edge.
        brightness: mean grey value of the structure, 0 to 1.
        spread: standard deviation of it.
    """

    share: np.ndarray
    radius_mm: float
    brightness: float
    spread: float


def find_body(scan: Volume) -> Body:
    """Find the body: the largest bright part of a scan."""
    step = [max(1, length // BODY_VOXELS) for length in scan.array.shape]
    coarse = scan.array[:: step[0], :: step[1], :: step[2]]
    bright = coarse > threshold_otsu(coarse) if coarse.min() < coarse.max() else np.ones(coarse.shape, bool)
    parts, count = ndimage.label(bright)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    voxels = np.argwhere(parts == int(sizes.argmax()) + 1) * step
    corners = scan.geometry.index_to_world(voxels[:, ::-1])
    return Body(corners.min(axis=0), corners.max(axis=0), looks_like_ct(scan))


def landmarks(scan: Volume, label: np.ndarray, values: Mapping[str, int]) -> dict[str, Landmark]:
    """Return a landmark of each structure that has voxels.

    Args:
        label: whole numbers [k, j, i], on the scan's grid.
        values: name of the structure to its number.
    """
    body, grey = find_body(scan), normalise(scan.array, choose_window(scan))
    found: dict[str, Landmark] = {}
    for name, value in values.items():
        inside = label == value
        if inside.any():
            depth_mm = ndimage.distance_transform_edt(inside, sampling=scan.geometry.spacing_mm[::-1])
            kji = np.unravel_index(int(depth_mm.argmax()), depth_mm.shape)
            place_mm = scan.geometry.index_to_world(kji[::-1])
            share = (place_mm - body.low_mm) / np.maximum(body.high_mm - body.low_mm, 1e-6)
            spread = max(float(grey[inside].std()), LEAST_SPREAD)
            found[name] = Landmark(share, float(depth_mm.max()), float(grey[inside].mean()), spread)
    return found


def transfer(known: Mapping[str, Landmark], scan: Volume) -> dict[str, IJK]:
    """Find landmarks in another scan; those whose brightness fits nowhere near their place are left out."""
    body, window = find_body(scan), choose_window(scan)
    placed: dict[str, IJK] = {}
    for name, landmark in known.items():
        place_mm = body.low_mm + landmark.share * (body.high_mm - body.low_mm)
        reach_mm = max(LEAST_REACH_MM, REACH_RADII * landmark.radius_mm)
        low, high = _window(scan.geometry, place_mm, reach_mm)
        if (low < high).all():
            cut = tuple(slice(a, b) for a, b in zip(low[::-1], high[::-1], strict=True))
            ijk = _best(normalise(scan.array[cut], window), low, scan.geometry, place_mm, reach_mm, landmark)
            if ijk is not None:
                placed[name] = ijk
    return placed


def _window(geometry: Geometry, place_mm: np.ndarray, reach_mm: float) -> tuple[np.ndarray, np.ndarray]:
    centre, reach = geometry.world_to_index(place_mm), reach_mm / np.array(geometry.spacing_mm)
    low = np.clip(np.floor(centre - reach), 0, geometry.size_ijk).astype(int)
    return low, np.clip(np.ceil(centre + reach) + 1, 0, geometry.size_ijk).astype(int)


def _best(
    grey: np.ndarray, low: np.ndarray, geometry: Geometry, place_mm: np.ndarray, reach_mm: float, landmark: Landmark
) -> IJK | None:
    smooth = ndimage.gaussian_filter(grey.astype(np.float32), SMOOTH_MM / np.array(geometry.spacing_mm[::-1]))
    voxels = np.argwhere(np.ones(smooth.shape, bool))[:, ::-1] + low
    far = np.linalg.norm(geometry.index_to_world(voxels) - place_mm, axis=1) / reach_mm
    off = np.abs(smooth.ravel() - landmark.brightness) / landmark.spread
    fits = (far <= 1.0) & (off <= MOST_SPREADS)
    if not fits.any():
        return None
    chosen = voxels[np.where(fits, off + 2.0 * far, np.inf).argmin()]
    return int(chosen[0]), int(chosen[1]), int(chosen[2])


logger = logging.getLogger(__name__)

AHEAD = 8
"""Images that get a pre-annotation after each submitted label: few, so that newer labels are used for the rest."""
MODEL = "sam2"
"""Named as the model in the record of a pre-annotation."""


@dataclass(frozen=True, slots=True)
class Source:
    """A labelled image, as far as others can be labelled from it.

    Args:
        body: where the body is in it.
    """

    image_id: str
    body: Body
    landmarks: Mapping[str, Landmark]


class PreAnnotator:
    """Makes pre-annotations in one background thread, at the lowest priority of the device queue.

    Args:
        labels: the app's, whose numbers the masks have.
        automatic: the campaign's networks.
    """

    def __init__(
        self, service: SegmentService, store: Datastore, labels: Sequence[str], automatic: AutomaticModels | None = None
    ) -> None:
        self._service = service
        self._automatic = automatic
        self._store = store
        self._labels = tuple(labels)
        self._submitted: queue.SimpleQueue[str | Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="pre-annotation", daemon=True).start()

    def submit(self, image_id: str) -> None:
        """Queue an image that has a new final label."""
        self._submitted.put(image_id)

    def wait(self, timeout_s: float) -> bool:
        """Return once everything submitted so far is done; False when that takes too long."""
        done = threading.Event()
        self._submitted.put(done.set)
        return done.wait(timeout_s)

    def annotate(self, known_id: str, image_ids: Sequence[str]) -> list[str]:
        """Give images a pre-annotation from the final label of another; return those that got one.

        Raises:
            SlicecastError: the label cannot be used. An image that cannot be used is left out.
        """
        source = self.source(known_id)
        return [name for name in image_ids if self.is_open(name) and self._try(name, source)]

    def source(self, known_id: str) -> Source:
        """Read an image and its final label.

        Raises:
            SlicecastError: the label cannot be used.
        """
        study = self._service.studies.open(Path(self._store.get_image_uri(known_id)))
        label = read_final_label(self._store, known_id, study, labels=self._labels)
        return Source(known_id, find_body(study.volume), landmarks(study.volume, label.array, label.values))

    def _try(self, image_id: str, source: Source) -> bool:
        try:
            return self.make(image_id, source)
        except SlicecastError as error:
            logger.warning("'%s' gets no pre-annotation: %s", image_id, error)
            return False

    def make(self, image_id: str, source: Source, *, cancelled: Callable[[], bool] = lambda: False) -> bool:
        """Give an image a pre-annotation from a labelled one; False where they do not resemble each other.

        Raises:
            Cancelled: it was stopped.
            SlicecastError: the image cannot be used.
        """
        path = Path(self._store.get_image_uri(image_id))
        study = self._service.studies.open(path)
        if network := self._network():
            with self._service.queue.background(cancelled=cancelled):
                self._segment(image_id, study, network)
            return True
        places = transfer(source.landmarks, study.volume) if find_body(study.volume).resembles(source.body) else {}
        if not places:
            logger.info("'%s' gets no pre-annotation: it does not resemble '%s'", image_id, source.image_id)
            return False
        points = {name: _as_stored(study, ijk) for name, ijk in places.items()}
        request = InferRequest(
            objects=tuple(Clicks(name, (ijk,)) for name, ijk in points.items()),
            values=number_labels(points, self._labels),
            extension=".nii.gz",
            compress=True,
        )
        with self._service.queue.background(cancelled=cancelled):
            prompts = request.prompts(study.reorientation.source.size_ijk)
            result = self._service.segment(SegmentRequest(path, prompts), study=study)
        answer = write_answer(result, request, image=path)
        try:
            if self.is_open(image_id) and answer.params["label_names"]:
                self._save(image_id, answer.file, {**answer.params, "carried_from": source.image_id, "points": points})
        finally:
            answer.file.unlink(missing_ok=True)
        return bool(answer.params["label_names"])

    def _save(self, image_id: str, file: Path, params: Mapping[str, Any]) -> None:
        info = {"model": MODEL, "params": dict(params)}
        self._store.save_label(image_id, str(file), ORIGINAL, info)
        logger.info("'%s' has a pre-annotation, from the label of '%s'", image_id, params["carried_from"])

    def _network(self) -> AutomaticModel | None:
        return self._automatic.latest() if self._automatic is not None else None

    def automatic(self, image_id: str, study: Study) -> None:
        """Give an image a pre-annotation now, by the campaign's network, if there is one and the image is open."""
        network = self._network()
        if network is not None and self.is_open(image_id):
            self._segment(image_id, study, network)

    def _segment(self, image_id: str, study: Study, network: AutomaticModel) -> None:
        values = number_labels(network.plan.names, self._labels)
        with self._service.queue.step():
            mask = cast(AutomaticModels, self._automatic).segment(network, study, values)
        present = {name: value for name, value in values.items() if (mask == value).any()}
        with tempfile.TemporaryDirectory(prefix="slicecast-") as folder:
            file = write_mask(Path(folder) / "mask.nii.gz", mask, study.reorientation.source)
            info = {"model": network.name, "params": {"label_names": present}}
            if self.is_open(image_id):
                self._store.save_label(image_id, str(file), ORIGINAL, info)
                logger.info("'%s' has a pre-annotation by %s", image_id, network.name)

    def is_open(self, image_id: str) -> bool:
        """Tell whether an image has no label, and no pre-annotation but one that a newer network can do better."""
        if self._store.get_label_uri(image_id, FINAL):
            return False
        if not self._store.get_label_uri(image_id, ORIGINAL):
            return True
        network, info = self._network(), self._store.get_label_info(image_id, ORIGINAL) or {}
        made = str(info.get("model", ""))
        ours = made.startswith(f"{AUTOMATIC}@") or "carried_from" in (info.get("params") or {})
        return network is not None and ours and made != network.name

    def _work(self) -> None:
        while True:
            task = self._submitted.get()
            if callable(task):
                task()
                continue
            try:
                waiting = [name for name in sorted(self._store.get_unlabeled_images()) if self.is_open(name)]
                self.annotate(task, waiting[:AHEAD])
            except SlicecastError as error:
                logger.info("The label of '%s' starts no pre-annotation: %s", task, error)
            except Exception:  # a background thread's outermost boundary: it would be lost otherwise
                logger.exception("Pre-annotation from '%s' failed", task)


def _as_stored(study: Study, ijk: IJK) -> IJK:
    """Turn a canonical voxel index into one of the file."""
    place_mm = study.volume.geometry.index_to_world(ijk)
    i, j, k = (int(n) for n in study.reorientation.source.world_to_index(place_mm).round())
    return i, j, k


NOTHING = "There is no automatic model and no pre-annotation. Place points and choose one of the interactive models."


def preannotation(store: Datastore, image_id: str, *, geometry: Geometry, labels: Sequence[str]) -> dict[str, Any]:
    """Return the pre-annotation as an infer answer, `file` and `params`; without one an empty mask.

    Args:
        labels: the app's, which are named where there is no pre-annotation.
    """
    uri = store.get_label_uri(image_id, ORIGINAL)
    if not uri:
        empty = Volume(np.zeros(geometry.size_ijk[::-1], np.uint8), geometry)
        return _answer(empty, {"label_names": number_labels(labels, labels), "warnings": [NOTHING]})
    params = (store.get_label_info(image_id, ORIGINAL) or {}).get("params") or {}
    return _answer(read_volume(uri), {"label_names": params.get("label_names") or {}, "warnings": []})


def _answer(mask: Volume, params: dict[str, Any]) -> dict[str, Any]:
    handle, path = tempfile.mkstemp(prefix="slicecast-", suffix=".nrrd")
    os.close(handle)
    write_volume(path, mask, compress=False)
    return {"file": path, "params": params}
