"""How sure the model was: the score behind the strategy `confidence`, kept in the image's info.

A result's confidence is written down when the result is made (`record_result`); the scoring method turns it, or
that of a pre-annotation saved under the tag `original`, into the image's score. Nothing is inferred here, so a
pass over the studies costs milliseconds and needs no process of its own.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.tasks.scoring import ScoringMethod

from slicecast.labelling.selection.candidates import Candidates

logger = logging.getLogger(__name__)

SCORE = "confidence"
"""Key of the score in an image's info: 0 (unsure) to 1."""
LAST_RESULT = "last_result"
"""Key of what the last result of an image was like."""


def record_result(datastore: Datastore, image_id: str, *, model: str, confidence: float | None, when_s: float) -> None:
    """Write down how sure the model was of its last result for an image."""
    entry = {"model": model, "confidence": confidence, "ts": int(when_s)}
    datastore.update_image_info(image_id, {LAST_RESULT: entry})


def confidence_of(image_info: Mapping[str, Any], original_info: Mapping[str, Any] | None = None) -> float | None:
    """Return the confidence of the last result, else of the pre-annotation; None when there is neither."""
    params = (original_info or {}).get("params") or {}
    candidates = ((image_info.get(LAST_RESULT) or {}).get("confidence"), params.get("mean_confidence"))
    return next((float(value) for value in candidates if isinstance(value, int | float)), None)


class ConfidenceScoring(ScoringMethod):
    """Scores each image without a final label by the mean confidence of its slices."""

    def __init__(self) -> None:
        super().__init__("Mean slice confidence of the last result or of the pre-annotation, 0 to 1")

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, float]:
        """Write the scores that have changed into the images' info; return all of them."""
        scores: dict[str, float] = {}
        seen = Candidates(datastore, datastore.get_unlabeled_images())
        for image_id in seen.get_unlabeled_images():
            info = seen.get_image_info(image_id)
            score = confidence_of(info, seen.get_label_info(image_id, DefaultLabelTag.ORIGINAL.value))
            if score is None:
                continue
            scores[image_id] = score
            if info.get(SCORE) != score:
                datastore.update_image_info(image_id, {SCORE: score})
        return scores


class ScoringQueue:
    """Runs scoring methods in one background thread; a method that already waits is not queued again."""

    def __init__(self, run: Callable[[str], Any]) -> None:
        self._run = run
        self._waiting: set[str] = set()
        self._guard = threading.Lock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="scoring")

    def submit(self, method: str) -> bool:
        """Queue a method; False if it was waiting already."""
        with self._guard:
            if method in self._waiting:
                return False
            self._waiting.add(method)
        self._thread.submit(self._work, method)
        return True

    def wait(self) -> None:
        """Return once everything queued so far is done."""
        self._thread.submit(lambda: None).result()

    def _work(self, method: str) -> None:
        with self._guard:
            self._waiting.discard(method)
        try:
            self._run(method)
        except Exception:  # a background thread's outermost boundary: nobody else would ever hear of it
            logger.exception("The scoring method '%s' failed", method)
