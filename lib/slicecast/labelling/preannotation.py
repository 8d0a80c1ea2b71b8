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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
        """Read an image and its final label; raises SlicecastError if the label cannot be used."""
        study = self._service.studies.open(Path(self._store.get_image_uri(known_id)))
        label = read_final_label(self._store, known_id, study, labels=self._labels)
        return Source(known_id, find_body(study.volume), landmarks(study.volume, label.array, label.values))

    def _try(self, image_id: str, source: Source) -> bool:
        try:
            return self.make(image_id, source)
        except SlicecastError as error:
            logger.warning("'%s' gets no pre-annotation: %s", image_id, error)
            return False

    def make(self, image_id: str, source: Source | None, *, cancelled: Callable[[], bool] = lambda: False) -> bool:
        """Give an image a pre-annotation by the campaign's network, else from a labelled image.

        False where there is neither, or the two images do not resemble each other.

        Raises:
            Cancelled: it was stopped.
            SlicecastError: the image cannot be used.
        """
        path = Path(self._store.get_image_uri(image_id))
        study = self._service.studies.open(path)
        if network := self.network():
            with self._service.queue.background(cancelled=cancelled):
                self._segment(image_id, study, network)
            return True
        if source is None:
            return False
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

    def network(self) -> AutomaticModel | None:
        """Return the campaign's network; None before there is one."""
        return self._automatic.latest() if self._automatic is not None else None

    def automatic(self, image_id: str, study: Study) -> None:
        """Give an image a pre-annotation now, by the campaign's network, if there is one and the image is open."""
        network = self.network()
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
