"""Pre-annotations: masks of images without a label, made in the background from images that have one.

After a label is submitted, the next images get a mask under the tag `original`: by the campaign's automatic network
where there is one (`finetuning/automatic.py`). Else a landmark of each structure is transferred from the labelled image
and becomes a click from which the model segments. Slicer loads the mask with Next Sample; the strategy `confidence`
reads the model's confidence in it.
"""

import logging
import queue
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
from monailabel.interfaces.datastore import Datastore

from slicecast.errors import SlicecastError
from slicecast.files import temporary
from slicecast.inference.segment import SegmentRequest, SegmentService
from slicecast.inference.studies import Study
from slicecast.labelling.finetuning.automatic import MODEL as AUTOMATIC
from slicecast.labelling.finetuning.automatic import AutomaticModel, AutomaticModels
from slicecast.labelling.landmarks import Body, Landmark, find_body, landmarks, transfer
from slicecast.labelling.store.labels import FINAL, ORIGINAL, read_final_label
from slicecast.labelling.tasks.answer import write_answer
from slicecast.labelling.tasks.request import Clicks, InferRequest, number_labels
from slicecast.models.versions import ModelVersions
from slicecast.prompts.model import IJK
from slicecast.volume import Geometry, Volume, read_volume, write_mask, write_volume

logger = logging.getLogger(__name__)

AHEAD = 8
"""Images that get a pre-annotation after each submitted label: few, so that newer labels are used for the rest."""
MODEL = "sam2"  # Named as the model in the record of a pre-annotation


@dataclass(frozen=True, slots=True)
class Source:
    """A labelled image, as far as others can be labelled from it."""

    image_id: str
    body: Body  # where the body is in it
    landmarks: Mapping[str, Landmark]


@dataclass(frozen=True, slots=True)
class Guess:
    """A pre-annotation that is not kept yet."""

    model: str  # what made it
    mask: bytes  # a .nii.gz file
    params: Mapping[str, Any]  # of its record


class Guesser:
    """Segments images without a label: by the campaign's network, else from labelled images.

    Args:
        labels: the app's, whose numbers the masks have.
        automatic: the campaign's networks.
    """

    def __init__(
        self, service: SegmentService, labels: Sequence[str], automatic: AutomaticModels | None = None
    ) -> None:
        self.service, self.labels, self._automatic = service, tuple(labels), automatic

    def network(self) -> AutomaticModel | None:
        """Return the campaign's network; None before there is one."""
        return self._automatic.latest() if self._automatic is not None else None

    def guess(
        self, path: Path, sources: Iterable[Source] = (), *, cancelled: Callable[[], bool] = lambda: False
    ) -> Guess | None:
        """Segment an image; None where there is no network, and it resembles no source.

        Raises:
            Cancelled: it was stopped.
            SlicecastError: the image cannot be used.
        """
        study = self.service.studies.open(path)
        with self.service.queue.background(cancelled=cancelled):
            if network := self.network():
                return self._by_network(study, network)
            return next((found for known in sources if (found := self._from_label(path, study, known))), None)

    def _by_network(self, study: Study, network: AutomaticModel) -> Guess:
        values = number_labels(network.plan.names, self.labels)
        with self.service.queue.step():
            mask = cast(AutomaticModels, self._automatic).segment(network, study, values)
        present = {name: value for name, value in values.items() if (mask == value).any()}
        with tempfile.TemporaryDirectory(prefix="slicecast-") as folder:
            file = write_mask(Path(folder) / "mask.nii.gz", mask, study.reorientation.source)
            return Guess(network.name, file.read_bytes(), {"label_names": present})

    def _from_label(self, path: Path, study: Study, source: Source) -> Guess | None:
        places = transfer(source.landmarks, study.volume) if find_body(study.volume).resembles(source.body) else {}
        if not places:
            logger.info("'%s' gets no pre-annotation from '%s', which it does not resemble", path.name, source.image_id)
            return None
        points = {name: _as_stored(study, ijk) for name, ijk in places.items()}
        request = InferRequest(
            objects=tuple(Clicks(name, (ijk,)) for name, ijk in points.items()),
            values=number_labels(points, self.labels),
            extension=".nii.gz",
            compress=True,
        )
        prompts = request.prompts(study.reorientation.source.size_ijk)
        result = self.service.segment(SegmentRequest(path, prompts), study=study)
        answer = write_answer(result, request, image=path)
        try:
            data = answer.file.read_bytes()
        finally:
            answer.file.unlink()
        params = {**answer.params, "carried_from": source.image_id, "points": points}
        return Guess(MODEL, data, params) if answer.params["label_names"] else None


@dataclass(frozen=True, slots=True)
class FarGuess:
    """A guess as a task of a cluster, whose workers keep their models."""

    folder: Path  # of the campaign's versions
    model: str | None  # the server's
    labels: tuple[str, ...]  # the app's
    device: str  # of the models

    def __call__(self, path: Path, sources: Sequence[Source]) -> Guess | str | None:
        """Guess as :meth:`Guesser.guess` does, with the reason as text where the image cannot be used."""
        try:
            return _far_guesser(self).guess(path, sources)
        except SlicecastError as error:
            return str(error)


@cache
def _far_guesser(far: FarGuess) -> Guesser:
    versions = ModelVersions(far.folder)
    service = SegmentService(model=far.model, device=far.device, versions=versions)
    return Guesser(service, far.labels, AutomaticModels(versions))


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
        self._guesser = Guesser(service, labels, automatic)
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
        """Read an image and its final label; raises SlicecastError if the label cannot be used."""
        study = self._service.studies.open(Path(self._store.get_image_uri(known_id)))
        label = read_final_label(self._store, known_id, study, labels=self._labels)
        return Source(known_id, find_body(study.volume), landmarks(study.volume, label.array, label.values))

    def _try(self, image_id: str, source: Source) -> bool:
        try:
            return self.make(image_id, [source])
        except SlicecastError as error:
            logger.warning("'%s' gets no pre-annotation: %s", image_id, error)
            return False

    def make(
        self, image_id: str, sources: Iterable[Source] = (), *, cancelled: Callable[[], bool] = lambda: False
    ) -> bool:
        """Give an image a pre-annotation; False where there is no network, and it resembles no source.

        Raises:
            Cancelled: it was stopped.
            SlicecastError: the image cannot be used.
        """
        found = self._guesser.guess(self.path(image_id), sources, cancelled=cancelled)
        if found is not None:
            self.keep(image_id, found)
        return found is not None

    def path(self, image_id: str) -> Path:
        """Return an image's file or folder."""
        return Path(self._store.get_image_uri(image_id))

    def keep(self, image_id: str, found: Guess) -> None:
        """Keep a pre-annotation, unless the image got a label meanwhile."""
        if not self.is_open(image_id):
            return
        with tempfile.TemporaryDirectory(prefix="slicecast-") as folder:
            file = Path(folder) / "mask.nii.gz"
            file.write_bytes(found.mask)
            self._store.save_label(image_id, str(file), ORIGINAL, {"model": found.model, "params": dict(found.params)})
        logger.info("'%s' has a pre-annotation, by %s", image_id, found.params.get("carried_from", found.model))

    def network(self) -> AutomaticModel | None:
        """Return the campaign's network; None before there is one."""
        return self._guesser.network()

    def automatic(self, image_id: str) -> None:
        """Give an image a pre-annotation now, by the campaign's network, if there is one and the image is open."""
        if self.network() is not None and self.is_open(image_id):
            self.make(image_id)

    def is_open(self, image_id: str) -> bool:
        """Tell whether an image has no label, and no pre-annotation but one that a newer network can do better."""
        if self._store.get_label_uri(image_id, FINAL):
            return False
        if not self._store.get_label_uri(image_id, ORIGINAL):
            return True
        network, info = self.network(), self._store.get_label_info(image_id, ORIGINAL) or {}
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
    with temporary(".nrrd") as path:
        write_volume(path, mask, compress=False)
    return {"file": str(path), "params": params}
