"""Turn what the annotator said into anchors: prompted slices whose answer is settled.

A mask is its own answer, and a box is segmented alone; where there are only clicks, so is the slice clicked on first.
Clicks on further slices are corrections: a lane is walked to the slice, and its answer there is corrected with the
lane's memory, as SAM 2 was trained (Ravi et al., section 5, interactive training). So a slice with only negative
clicks works too, and no correction is ever lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slicecast.engine.frames import View, cut, resample
from slicecast.engine.lanes import Anchor, Lane, walk
from slicecast.engine.ports import ModelPrompt, Observation, PromptJob, TrackJob
from slicecast.engine.tracker import SliceAnswer, Tracker
from slicecast.engine.zoom import to_model_prompt
from slicecast.prompts import SlicePrompt, first_clicked


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """An object's window, with what is needed to ask about it."""

    tracker: Tracker
    view: View

    def ask(self, prompts: Sequence[SlicePrompt]) -> list[Observation]:
        size = self.tracker.predictor.image_size
        embeddings = self.tracker.embed([(p.slice, self.view) for p in prompts])
        jobs = [PromptJob(e, model_prompt(p, self.view, size=size)) for e, p in zip(embeddings, prompts, strict=True)]
        return self.tracker.predictor.prompt(jobs, num_slices=self.tracker.frames.count)


def find_anchors(tracker: Tracker, prompts: Sequence[SlicePrompt], view: View) -> list[Anchor]:
    """Settle all prompted slices of one object, ascending."""
    place = _Place(tracker, view)
    given = [p for p in prompts if not p.absent]
    alone = _stand_alone(given)
    anchors = [_anchor(p.slice, seen) for p, seen in zip(alone, place.ask(alone), strict=True)]
    tracker.count(len(alone), "reading prompts")
    settled = {p.slice for p in alone}
    corrections = [p for p in given if p.slice not in settled]
    while corrections:
        corrections.sort(key=lambda p: min(abs(p.slice - a.slice) for a in anchors))
        found = _correct(place, corrections.pop(0), anchors)
        if found is not None:
            anchors.append(found)
    return sorted(anchors, key=lambda a: a.slice)


def anchors_alone(tracker: Tracker, prompts: Sequence[SlicePrompt], view: View) -> list[Anchor]:
    """Settle each slice that can be segmented from its own prompts, without memory of others."""
    starts = [p for p in prompts if p.starts]
    seen = _Place(tracker, view).ask(starts)
    tracker.count(len(starts), "reading prompts")
    return [_anchor(p.slice, o) for p, o in zip(starts, seen, strict=True)]


def model_prompt(prompt: SlicePrompt, view: View, *, size: int) -> ModelPrompt:
    """Carry a slice's prompts into model pixels; a mask goes in resampled."""
    if prompt.mask is None:
        return to_model_prompt(prompt, view, size=size)
    seen = resample(cut(prompt.mask.astype(np.float32), view), (size, size))
    none = np.zeros((0, 2), dtype=np.float32)
    # A mask that is smaller than a model pixel keeps its densest pixel rather than vanish.
    return ModelPrompt(none, np.zeros(0, dtype=np.int32), mask=seen >= min(0.5, float(seen.max())))


def _stand_alone(given: Sequence[SlicePrompt]) -> list[SlicePrompt]:
    """Return the slices to segment without memory: masks and boxes; failing those, the one clicked on first."""
    strong = [p for p in given if p.mask is not None or p.box_xyxy is not None]
    return strong or [first_clicked(given)]


def _correct(place: _Place, prompt: SlicePrompt, anchors: Sequence[Anchor]) -> Anchor | None:
    """Walk to a slice and correct what is found; None where there is nothing to correct."""
    tracker = place.tracker
    words = to_model_prompt(prompt, place.view, size=tracker.predictor.image_size)
    if not len(words.labels):
        return None  # negative clicks beside the window: nothing of the object is there
    nearest = min(anchors, key=lambda a: (abs(a.slice - prompt.slice), a.slice))
    lane = Lane(place.view, nearest, stop=prompt.slice)
    walk(tracker, [lane], what="walking to a correction")
    embedding = tracker.embed([(prompt.slice, place.view)])[0]
    count = tracker.frames.count
    tracked = tracker.predictor.track([TrackJob(embedding, lane.bank)], num_slices=count)[0]
    if not SliceAnswer.of(tracked).present:
        return _anchor(prompt.slice, place.ask([prompt])[0]) if prompt.starts else None
    job = PromptJob(embedding, words, bank=lane.bank, previous=tracked.logits)
    return _anchor(prompt.slice, tracker.predictor.prompt([job], num_slices=count)[0])


def _anchor(number: int, seen: Observation) -> Anchor:
    return Anchor(number, SliceAnswer.of(seen, prompted=True), seen.memory)
