"""Strategies that read the ranked queues of the background scorer, and the studies as the scorer sees them.

Next Sample takes the first candidate of a queue. While there is none yet it chooses at random, and the reason says so.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from numpy.typing import NDArray

from slicecast.active.volumes import STRATEGIES, active_settings
from slicecast.campaign.campaign import Choice
from slicecast.inference.segment import SegmentService
from slicecast.inference.studies import Study
from slicecast.labelling.scoring.background import BackgroundScorer, RankedQueue
from slicecast.labelling.store.labels import read_final_label

ABOUT = {
    "strat_random": "Random within groups of images that look alike",
    "coverage": "Images that stand for most others first",
    "auto": "Typical images first, then the model's doubts with one random pick in five",
}

SCORES = "scores"
"""Folder of the scorer's cache, in the campaign's folder."""


class StudyCases:
    """The studies as the scorer sees them.

    Args:
        datastore: the images and labels.
        labels: the app's, whose numbers an unnamed label has.
    """

    def __init__(self, datastore: Callable[[], Datastore], *, labels: Sequence[str]) -> None:
        self._datastore, self._labels = datastore, tuple(labels)

    def labelled(self) -> Sequence[str]:
        """Return the names of the images with a final label."""
        return list(self._datastore().get_labeled_images())

    def waiting(self) -> Sequence[str]:
        """Return the names of the images without one."""
        return list(self._datastore().get_unlabeled_images())

    def image(self, name: str) -> Path:
        """Return an image's file or folder."""
        return Path(self._datastore().get_image_uri(name))

    def label(self, name: str, study: Study) -> tuple[NDArray[np.integer], Mapping[str, int]]:
        """Return a label in canonical orientation, and the number of each structure.

        Raises:
            VolumeError: it cannot be read.
            GeometryError: it is not on its image's grid.
        """
        label = read_final_label(self._datastore(), name, study, labels=self._labels)
        return label.array, label.values or {f"label {value}": value for value in label.present}


class RankedStrategy(Strategy):
    """A strategy that reads a ranked queue.

    Args:
        name: of the strategy, one of `slicecast.active.volumes`.
        scorer: keeps the queue.
        otherwise: chooses while there is none.
    """

    def __init__(self, name: str, scorer: BackgroundScorer, *, otherwise: Strategy) -> None:
        super().__init__(ABOUT.get(name, f"Images ordered by {name.replace('_', ' ')}"))
        self._name, self._scorer, self._otherwise = name, scorer, otherwise

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Choose an image; None when all are labelled."""
        queue = self._scorer.queue(self._name)
        left = set(datastore.get_unlabeled_images())
        first = next((c for c in queue.choices if c.name in left), None) if queue else None
        if first is None or queue is None:
            chosen = self._otherwise(request, datastore)
            return chosen and {**chosen, "reason": f"no order by {self._name} is ready yet: {chosen['reason']}"}
        score = {} if first.score is None else {"score": first.score}
        return {"id": first.name, **score, "reason": f"{first.reason} ({_seen(queue)})"}

    def rank(self, names: Sequence[str], datastore: Datastore) -> list[Choice]:
        """Order cases for the queue on the page; those that are not ranked come last."""
        queue = self._scorer.queue(self._name)
        left = set(names)
        known = [Choice(c.name, c.reason, c.score) for c in queue.choices if c.name in left] if queue else []
        listed = {choice.case for choice in known}
        return known + [Choice(name, "not in the order yet") for name in names if name not in listed]


class BackgroundScoring(ScoringMethod):
    """Writes the scores that exist already into the images' info.

    Args:
        scorer: computes them in the background. A request that names a `strategy` makes it keep that one's queue too.
    """

    def __init__(self, scorer: BackgroundScorer) -> None:
        super().__init__("Scores of the images without a label, made in the background")
        self._scorer = scorer
        self._written: dict[str, Mapping[str, float]] = {}

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Write the scores that have changed; return all of them."""
        strategy = request.get("strategy")
        if isinstance(strategy, str) and strategy in STRATEGIES:
            self._scorer.queue(strategy)
        left = set(datastore.get_unlabeled_images())
        scores = {n: cached.scores for n, cached in self._scorer.cached().items() if cached.scores and n in left}
        for name, own in scores.items():
            if self._written.get(name) is not own:
                datastore.update_image_info(name, {"scores": dict(own)})
                self._written[name] = own
        return {name: dict(own) for name, own in scores.items()}


def open_background_scorer(
    service: SegmentService, cases: StudyCases, *, folder: Path, local: bool
) -> BackgroundScorer:
    """Return a scorer with the settings of `configs/active.yaml`.

    Args:
        local: the studies are a folder. Others are not scored: every volume would have to be fetched first.
    """
    chosen = active_settings()
    return BackgroundScorer(
        service, cases, settings=replace(chosen, background=chosen.background and local), folder=folder
    )


def ranked_strategies(scorer: BackgroundScorer, known: Mapping[str, Strategy], *, own: str) -> dict[str, Strategy]:
    """Return the strategies of `configs/active.yaml` and the campaign's own that are not known yet, by name."""
    names = [name for name in dict.fromkeys((*active_settings().offered, own)) if name not in known]
    return {name: RankedStrategy(name, scorer, otherwise=known["random"]) for name in names if name in STRATEGIES}


def _seen(queue: RankedQueue) -> str:
    return f"{queue.embedded} of {len(queue.choices)} without a label were looked at, {queue.scored} scored"
