"""Strategies that choose the next image among those without a final label.

Every answer has a reason in words. OHIF's strategy menu has no effect, it always asks for `random`: see
`slicecast.labelling.app.asked_strategy`. The strategies of `slicecast.active.volumes` read the ranked queues of the
background ranker: Next Sample takes the first candidate of a queue. While there is no queue yet it chooses at random,
and says so.
"""

import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy

from slicecast.active.volumes import STRATEGIES, active_settings
from slicecast.campaign.campaign import Choice
from slicecast.inference.segment import SegmentService
from slicecast.labelling.background_ranker import BackgroundRanker, RankedQueue
from slicecast.labelling.store.studies import StudiesDatastore

Clock = Callable[[], float]

LONG_AGO_S = 24 * 3600.0  # An image shown longer ago than this counts as never shown


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
    """A random image; those shown longest ago, or never, are likelier, so that two annotators rarely get the same one.

    Unlike MONAI Label's own it does not fail when every image has been shown within the last second.
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


def last_shown(image_info: Mapping[str, Any]) -> float:
    """Return when any strategy last offered an image, seconds since 1970; 0 for never."""
    return max((entry.get("ts", 0) for entry in (image_info.get("strategy") or {}).values()), default=0)


def strategies(*, rng: random.Random | None = None, clock: Clock = time.time) -> dict[str, Strategy]:
    """Return the app's strategies by name."""
    return {"random": Random(rng=rng, clock=clock), "first": First()}


class Candidates:
    """A view of a store that lists only the candidates.

    Image info is returned without a copy and without a look at the disk, because a strategy asks for that of thousands
    of images while a user waits. It must not be changed.
    """

    def __init__(self, store: StudiesDatastore, names: Sequence[str]) -> None:
        self._store = store
        self._names = list(names)

    def get_unlabeled_images(self) -> list[str]:
        """Return the candidates."""
        return list(self._names)

    def get_image_info(self, image_id: str) -> Mapping[str, Any]:
        """Return what is known of an image."""
        record = self._store._datastore.objects.get(image_id)
        return record.image.info if record else {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


logger = logging.getLogger(__name__)

ABOUT = {
    "strat_random": "Random within groups of images that look alike",
    "coverage": "Images that stand for most others first",
}

EMBEDDINGS = "scores"  # Folder of the ranker's cache, in the campaign's folder; named by what earlier versions kept


class RankedStrategy(Strategy):
    """A strategy that reads a ranked queue.

    Args:
        name: of the strategy, one of `slicecast.active.volumes`.
        otherwise: chooses while there is none.
    """

    def __init__(self, name: str, ranker: BackgroundRanker, *, otherwise: Strategy) -> None:
        super().__init__(ABOUT.get(name, f"Images ordered by {name}"))
        self._name, self._ranker, self._otherwise = name, ranker, otherwise

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Choose an image; None when all are labelled."""
        queue = self._ranker.queue(self._name)
        left = set(datastore.get_unlabeled_images())
        first = next((c for c in queue.choices if c.name in left), None) if queue else None
        if first is None or queue is None:
            chosen = self._otherwise(request, datastore)
            return chosen and {**chosen, "reason": f"no order by {self._name} is ready yet: {chosen['reason']}"}
        score = {} if first.score is None else {"score": first.score}
        return {"id": first.name, **score, "reason": f"{first.reason} ({_seen(queue)})"}

    def rank(self, names: Sequence[str], datastore: Datastore) -> list[Choice]:
        """Order cases for the queue on the page; those that are not ranked come last."""
        queue = self._ranker.queue(self._name)
        left = set(names)
        known = [Choice(c.name, c.reason, c.score) for c in queue.choices if c.name in left] if queue else []
        listed = {choice.case for choice in known}
        return known + [Choice(name, "not in the order yet") for name in names if name not in listed]


def open_background_ranker(
    service: SegmentService, datastore: Callable[[], Datastore], *, folder: Path, local: bool
) -> BackgroundRanker:
    """Return a ranker with the settings of `configs/active.yaml`.

    Args:
        local: the studies are a folder. Others are not ranked: every volume would have to be fetched first.
    """
    chosen = active_settings()
    return BackgroundRanker(
        service, datastore, settings=replace(chosen, background=chosen.background and local), folder=folder
    )


def ranked_strategies(ranker: BackgroundRanker, known: Mapping[str, Strategy], *, own: str) -> dict[str, Strategy]:
    """Return the strategies of `configs/active.yaml` and the campaign's own that are not known yet, by name."""
    names = [name for name in dict.fromkeys((*active_settings().offered, own)) if name not in known]
    return {name: RankedStrategy(name, ranker, otherwise=known["random"]) for name in names if name in STRATEGIES}


def _seen(queue: RankedQueue) -> str:
    return f"{queue.embedded} of {len(queue.choices)} without a label were looked at"
