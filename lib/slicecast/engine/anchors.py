"""Turn what the annotator said into anchors: prompted slices whose answer is settled.

A mask is its own answer, and a box is segmented alone; where there are only clicks, so is the slice clicked on first.
Clicks on further slices are corrections: a lane is walked to the slice, and its answer there is corrected with the
lane's memory, as SAM 2 was trained (Ravi et al., section 5, interactive training). So a slice with only negative
clicks works too, and no correction is ever lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from slicecast.engine.caches import Known, prompt_name
from slicecast.engine.crop_window import to_model_prompt
from slicecast.engine.frames import View, cut, resample
from slicecast.engine.ports import ModelPrompt, Observation, PromptJob
from slicecast.engine.tracker import SliceAnswer, Told, Tracker
from slicecast.engine.tracks import Anchor, Lane, next_answers, walk
from slicecast.prompts import SlicePrompt, first_clicked


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """An object's window, with what is needed to ask about it."""

    tracker: Tracker
    view: View
    object: str

    def settle(self, prompts: Sequence[SlicePrompt]) -> list[Anchor]:
        """Settle slices without memory of others."""
        tracker, size = self.tracker, self.tracker.predictor.image_size
        words = [model_prompt(p, self.view, size=size) for p in prompts]

        def ask(missing: list[int]) -> list[Observation]:
            embeddings = tracker.embed([(prompts[n].slice, self.view) for n in missing])
            jobs = [PromptJob(e, words[n]) for e, n in zip(embeddings, missing, strict=True)]
            return tracker.predictor.prompt(jobs, num_slices=tracker.frames.count)

        names = [tracker.name("alone", self.view, p.slice, prompt_name(w)) for p, w in zip(prompts, words, strict=True)]
        found = zip(prompts, tracker.answers(names, ask), names, strict=True)
        return [self.anchor(p.slice, known, name) for p, known, name in found]

    def anchor(self, number: int, known: Known, name: str) -> Anchor:
        """Take an answer as settled, and report it."""
        answer = SliceAnswer.of(known.observation, prompted=True)
        self.tracker.on_answer(Told(self.object, number, self.view, answer, known.reused))
        return Anchor(number, answer, known.observation.memory, name)


def find_anchors(tracker: Tracker, prompts: Sequence[SlicePrompt], view: View, *, object: str = "") -> list[Anchor]:
    """Settle all prompted slices of one object, ascending."""
    place = _Place(tracker, view, object)
    given = [p for p in prompts if not p.absent]
    alone = _stand_alone(given)
    anchors = place.settle(alone)
    tracker.count(len(alone), "reading prompts")
    settled = {p.slice for p in alone}
    corrections = [p for p in given if p.slice not in settled]
    while corrections:
        corrections.sort(key=lambda p: min(abs(p.slice - a.slice) for a in anchors))
        found = _correct(place, corrections.pop(0), anchors)
        if found is not None:
            anchors.append(found)
    return sorted(anchors, key=lambda a: a.slice)


def anchors_alone(tracker: Tracker, prompts: Sequence[SlicePrompt], view: View, *, object: str = "") -> list[Anchor]:
    """Settle each slice that can be segmented from its own prompts, without memory of others."""
    anchors = _Place(tracker, view, object).settle([p for p in prompts if p.starts])
    tracker.count(len(anchors), "reading prompts")
    return anchors


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
    tracker, view = place.tracker, place.view
    words = to_model_prompt(prompt, view, size=tracker.predictor.image_size)
    if not len(words.labels):
        return None  # negative clicks beside the window: nothing of the object is there
    nearest = min(anchors, key=lambda a: (abs(a.slice - prompt.slice), a.slice))
    lane = Lane(view, nearest, stop=prompt.slice)
    walk(tracker, [lane], what="walking to a correction")
    tracked = next_answers(tracker, [lane], [prompt.slice])[0].observation
    if not SliceAnswer.of(tracked).present:
        return place.settle([prompt])[0] if prompt.starts else None

    def ask(missing: list[int]) -> list[Observation]:
        job = PromptJob(tracker.embed([(prompt.slice, view)])[0], words, bank=lane.bank, previous=tracked.logits)
        return tracker.predictor.prompt([job], num_slices=tracker.frames.count)

    name = tracker.name("correction", lane.origin, prompt.slice, prompt_name(words))
    return place.anchor(prompt.slice, tracker.answers([name], ask)[0], name)
