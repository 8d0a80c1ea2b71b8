"""Which image is next. Every answer says why, in words; an image without a final label is a candidate.

OHIF's strategy menu is dead, it always asks for `random`: see `slicecast.labelling.app.asked_strategy`.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.tasks.strategy import Strategy

from slicecast.campaign.choose import Choice
from slicecast.labelling.selection.scoring import SCORE, confidence_of

Clock = Callable[[], float]

LONG_AGO_S = 24 * 3600.0
"""An image shown longer ago than this counts as never shown."""


class First(Strategy):
    """The first image by name."""

    def __init__(self) -> None:
        super().__init__("First image by name that has no final label")

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Choose an image; None when all are labelled."""
        images = sorted(datastore.get_unlabeled_images())
        return {"id": images[0], "reason": f"first by name of {len(images)} without a label"} if images else None

    def rank(self, names: Sequence[str], datastore: Datastore) -> list[Choice]:
        """Order cases for the queue."""
        return [Choice(name, f"number {place} of {len(names)} by name") for place, name in enumerate(names, start=1)]


class Random(Strategy):
    """A random image; those shown longest ago, or never, are likelier, so that two annotators rarely meet.

    Unlike MONAI Label's own it also answers when every image has been shown within the last second.
    """

    def __init__(self, *, rng: random.Random | None = None, clock: Clock = time.time) -> None:
        super().__init__("Random image without a final label, preferring those not shown lately")
        self._rng = rng or random.Random()
        self._clock = clock

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Choose an image; None when all are labelled."""
        images = sorted(datastore.get_unlabeled_images())
        if not images:
            return None
        weights = self._seconds_since_shown(images, datastore)
        chosen = self._rng.choices(range(len(images)), weights=weights)[0]
        reason = f"random among {len(images)} without a label"
        return {"id": images[chosen], "weight": weights[chosen], "reason": reason}

    def _seconds_since_shown(self, images: Sequence[str], datastore: Datastore) -> list[float]:
        now = self._clock()
        return [min(max(now - last_shown(datastore.get_image_info(image)), 1.0), LONG_AGO_S) for image in images]


class LeastConfident(Strategy):
    """The image whose mask the model was least sure of; by chance among those that have no mask yet."""

    def __init__(self, *, otherwise: Strategy) -> None:
        super().__init__("Image whose mask the model was least sure of")
        self._otherwise = otherwise

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Choose an image; None when all are labelled."""
        scores = {image: self._score(image, datastore) for image in sorted(datastore.get_unlabeled_images())}
        scored = {image: score for image, score in scores.items() if score is not None}
        if not scored:
            chosen = self._otherwise(request, datastore)
            return chosen and {**chosen, "reason": f"no image has a confidence yet: {chosen['reason']}"}
        image = min(scored, key=lambda name: (scored[name], name))
        among = f"{len(scored)} with a mask ({len(scores)} without a label)"
        reason = f"mean slice confidence {scored[image]:.2f}, the lowest of {among}"
        return {"id": image, SCORE: scored[image], "reason": reason}

    def rank(self, names: Sequence[str], datastore: Datastore) -> list[Choice]:
        """Order cases for the queue: the least sure first, those without a mask last."""
        scores = {name: self._score(name, datastore) for name in names}
        reasons = {n: "no mask yet" if s is None else f"mean slice confidence {s:.2f}" for n, s in scores.items()}
        order = sorted(names, key=lambda name: (2.0 if scores[name] is None else scores[name], name))
        return [Choice(name, reasons[name], scores[name]) for name in order]

    @staticmethod
    def _score(image: str, datastore: Datastore) -> float | None:
        original = datastore.get_label_info(image, DefaultLabelTag.ORIGINAL.value)
        return confidence_of(datastore.get_image_info(image), original)


def last_shown(image_info: Mapping[str, Any]) -> float:
    """Return when any strategy last offered an image, seconds since 1970; 0 for never."""
    return max((entry.get("ts", 0) for entry in (image_info.get("strategy") or {}).values()), default=0)


def strategies(*, rng: random.Random | None = None, clock: Clock = time.time) -> dict[str, Strategy]:
    """Return the app's strategies by name."""
    chance = Random(rng=rng, clock=clock)
    return {"random": chance, "first": First(), "confidence": LeastConfident(otherwise=chance)}
