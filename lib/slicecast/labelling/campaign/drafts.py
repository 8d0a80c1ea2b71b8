"""Drafts: what each person has so far of each case, to be submitted from the page, for OHIF has no Submit button.

Structures accumulate in a person's draft, whichever client and task made them.
"""

import hashlib
import json
import logging
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from monailabel.interfaces.datastore import Datastore

from slicecast.campaign.campaign import Campaign, is_blind
from slicecast.campaign.state import ReadingTask, Status
from slicecast.errors import Conflict, GeometryError, NotFound
from slicecast.files import file_sha256, place_file, write_atomically
from slicecast.labelling.campaign.structures import Structures
from slicecast.labelling.store.datastore import VERSIONS
from slicecast.labelling.store.labels import FINAL
from slicecast.labelling.tasks.answer import InferAnswer
from slicecast.labelling.tasks.request import DEFAULT_NAME
from slicecast.volume import write_volume

logger = logging.getLogger(__name__)

ENDINGS = (".nii.gz", ".nrrd", ".nii", ".mha")

NAME = 24  # Letters of a hash in a file's name

BEFORE = "before"
"""Key, in a kept record, of the records that it replaced, oldest first."""

STEPS = 10
"""So many replaced drafts are kept, to go back to."""

SLICE_FEATURES = "signs"
"""Key of the slice features in drafts and events; its old word, so that what was recorded can still be read."""

NAMELESS = (
    "The request does not say which structure this is, so it is not kept to be submitted. Send its name as 'label'."
)

ANSWER_KEYS = ("mean_confidence", "confidence", "confidence_kind", "axis", "next_slice", "good_enough")
"""What the page shows of an answer."""


CHANGED = (
    "It is not what {} submitted: the file was changed in the folder. Put the submitted one back; or reject this "
    "label, and submit the file as your own with slicecast labels import."
)


class LabelChanged(Conflict):
    """A label is not the one that was submitted."""


@dataclass(frozen=True, slots=True)
class MaskDraft:
    """A kept mask."""

    file: Path  # the mask
    record: dict[str, Any]  # who, when_s, model and the answer's params


class Drafts:
    """Drafts in a folder; the files' names are hashes, so that they tell nothing about people.

    Args:
        folder: made when first needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, case: str, who: str, mask: Path, record: dict[str, Any]) -> None:
        """Keep a copy of a mask in place of the person's last draft, which `back` brings back."""
        stem = self._stem(case, who)
        before = _records(stem)
        _write(stem, mask, {**record, "who": who, "case": case, BEFORE: before[-STEPS:]})
        _remove(stem, before[:-STEPS])

    def back(self, case: str, who: str) -> bool:
        """Put the draft before in place of a person's draft, or none; tell whether there was one to take back."""
        stem = self._stem(case, who)
        records = _records(stem)
        if len(records) > 1:
            _put(stem, {**records[-2], BEFORE: records[:-2]})
        elif records:
            _beside(stem, ".json").unlink()
        _remove(stem, records[-1:])
        return bool(records)

    def keep_first(self, case: str, who: str, mask: Path, record: dict[str, Any]) -> None:
        """Keep a copy of the model's answer, unless there is one since the person last submitted the case."""
        if not self.first(case, who):
            _write(_first(self._stem(case, who)), mask, {**record, "who": who, "case": case})

    def first(self, case: str, who: str) -> MaskDraft | None:
        """Return a person's first draft since they last submitted the case, or None."""
        return _open(_beside(_first(self._stem(case, who)), ".json"))

    def forget_first(self, case: str, who: str) -> None:
        """Remove the first draft, so that the next one becomes the first."""
        draft = self.first(case, who)
        if draft is not None:
            _beside(_first(self._stem(case, who)), ".json").unlink(missing_ok=True)
            draft.file.unlink(missing_ok=True)

    def find(self, case: str, who: str) -> MaskDraft | None:
        """Return a person's draft, or None."""
        return _open(_beside(self._stem(case, who), ".json"))

    def latest(self, case: str) -> MaskDraft | None:
        """Return the newest draft of a case by anybody, or None."""
        found = [_open(path) for path in self._case(case).glob(f"{'?' * NAME}.json")]  # not the first ones
        return max((draft for draft in found if draft), key=lambda draft: draft.record["when_s"], default=None)

    def _case(self, case: str) -> Path:
        return self._folder / hashlib.sha256(case.encode()).hexdigest()[:NAME]

    def _stem(self, case: str, who: str) -> Path:
        return self._case(case) / hashlib.sha256(who.encode()).hexdigest()[:NAME]


def _open(record: Path) -> MaskDraft | None:
    content = _read(record)
    content.pop(BEFORE, None)
    file = record.with_name(content.get("file", record.name))
    return MaskDraft(file, content) if content and file.is_file() else None


def _first(stem: Path) -> Path:
    return _beside(stem, "-first")


def _beside(stem: Path, ending: str) -> Path:
    return stem.with_name(stem.name + ending)


def _read(record: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(record.read_text(encoding="utf-8")))
    except FileNotFoundError:  # also where another thread forgets a first draft just now
        return {}


def _records(stem: Path) -> list[dict[str, Any]]:
    """Return the records of a draft and of those before, oldest first."""
    content = _read(_beside(stem, ".json"))
    return [*content.pop(BEFORE, []), content] if content else []


def _write(stem: Path, mask: Path, record: dict[str, Any]) -> None:
    """Write a mask under a new name, then the record that names it: a crash leaves the old draft or the new one."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    ending = next(ending for ending in ENDINGS if mask.name.endswith(ending))
    target = _beside(stem, f"-{uuid4().hex[:12]}{ending}")
    place_file(mask, target)
    _put(stem, {**record, "file": target.name})


def _put(stem: Path, record: dict[str, Any]) -> None:
    write_atomically(_beside(stem, ".json"), json.dumps(record, default=str).encode())


def _remove(stem: Path, records: list[dict[str, Any]]) -> None:
    for record in records:
        stem.with_name(record["file"]).unlink(missing_ok=True)


class CaseDrafts:
    """Drafts, and how they go on from each other and from labels.

    Args:
        campaign: says who reads a case, and how it stands.
        datastore: the images and labels.
        drafts: as files.
        labels: names of structures, whose places are their numbers in drafts.
    """

    def __init__(
        self, campaign: Campaign, datastore: Callable[[], Datastore], drafts: Drafts, *, labels: Sequence[str] = ()
    ) -> None:
        self._campaign = campaign
        self._datastore = datastore
        self.drafts = drafts
        self._labels = tuple(labels)
        self.alone = threading.RLock()
        """Held while a draft is read and written, or submitted."""

    def add(self, image: str, case: str, who: str, answer: InferAnswer, made: Mapping[str, Any]) -> None:
        """Add a model's answer to a person's draft; one that does not say which structure it is, is not kept.

        Args:
            image: as the client names it.
            case: the image's own name.
            who: the person.
            answer: gets a warning where it is not kept.
            made: by which task (`task`) and weights (`model_hash`).
        """
        found = Structures.read(answer.file, answer.params, self._labels)
        if DEFAULT_NAME in found.values and DEFAULT_NAME not in self._labels:
            answer.params.setdefault("warnings", []).append(NAMELESS)
            return
        empty = Structures(found.mask.with_array(np.zeros_like(found.mask.array)), {})
        shown = {key: answer.params.get(key) for key in ANSWER_KEYS}
        record = {**shown, "image": image, "when_s": self._campaign.now_s(), **made}
        with self.alone:
            before = self.current(case, who)
            if answer.slice is None:
                first = {**record, SLICE_FEATURES: answer.slice_features}
                self._keep(self.drafts.keep_first, case, who, empty.plus(found, self._labels), first)
            elif before is not None:  # one slice says nothing about the others
                record = {**before.record, **{key: record[key] for key in ("image", "when_s")}}
            try:
                kept = empty if before is None else self.structures(before)
                now = kept.plus(found, self._labels, only_slice=answer.slice)
            except GeometryError as error:  # the image was replaced
                logger.warning("The draft of '%s' by %s begins again: %s", case, who, error)
                now = empty.plus(found, self._labels)
            self._keep(self.drafts.keep, case, who, now, record)

    def _keep(self, keep: Callable[..., None], case: str, who: str, now: Structures, record: Mapping[str, Any]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = write_volume(Path(folder) / "draft.nii.gz", now.mask)
            keep(case, who, file, {**record, "label_info": now.label_info()})

    def current(self, case: str, who: str) -> MaskDraft | None:
        """Return what a person sees of a case and goes on from, if anything.

        The newer of their draft and the final label; without a draft of their own the newest of anybody. A second
        reader, and whoever reads a hidden gold case, goes on from their own draft only.
        """
        known = self._campaign.state().case(case)
        own = self.drafts.find(case, who)
        if is_blind(known, who) or known.gold:
            return own
        draft, label = own or self.drafts.latest(case), self.label(case)
        if draft is None or label is None or draft.record["when_s"] > label.record["when_s"]:
            return draft or label
        return replace(label, record={**{key: draft.record.get(key) for key in ANSWER_KEYS}, **label.record})

    def shown(self, case: str, who: str) -> dict[str, MaskDraft]:
        """Return what a person may look at of a case, by what to call it.

        The label, the draft, second readings and replaced labels; to those of whom `current` hides others' work, only
        their own draft.
        """
        known, own = self._campaign.state().case(case), self.drafts.find(case, who)
        if is_blind(known, who) or known.gold:
            return {"your draft": own} if own else {}
        label, draft = self.label(case), own or self.drafts.latest(case)
        first = known.reading(ReadingTask.ANNOTATE)
        found = {f"label by {first.who if first else 'nobody known'}": label} if label else {}
        found |= {f"draft by {draft.record['who']}": draft} if draft else {}
        for reading in known.readings:
            if reading.task is ReadingTask.SECOND and (file := self._datastore().get_label_uri(case, reading.tag)):
                record = self._datastore().get_label_info(case, reading.tag) or {}
                found[f"second reading by {reading.who}"] = MaskDraft(Path(file), record)
        return found | (_replaced(label.file, known.name) if label else {})

    def label(self, case: str) -> MaskDraft | None:
        """Return a case's final label as if it were a draft, or None; its record says `final`."""
        known, file = self._campaign.state().case(case), self.final_label(case)
        if file is None:
            return None
        info = self._datastore().get_label_info(known.name, FINAL) or {}
        reading = known.reading(ReadingTask.ANNOTATE)
        record = {**info, "image": known.name, "when_s": reading.when_s if reading else float(info.get("ts", 0))}
        return MaskDraft(file, {**record, "final": True})

    def structures(self, found: MaskDraft) -> Structures:
        """Return the named structures of a draft or label."""
        return Structures.read(found.file, found.record, self._labels)

    def to_submit(self, case: str, who: str) -> MaskDraft:
        """Return what Submit would save: a person's draft, or a label that was rejected, if they leave it as it is.

        Raises:
            NotFound: there is nothing.
        """
        found = self.current(case, who)
        rejected = self._campaign.state().case(case).status is Status.REJECTED
        if found is not None and (rejected if found.record.get("final") else found.record.get("who") == who):
            return found
        raise NotFound(f"There is no draft of '{case}' by {who} to submit. Segment it first, in OHIF or Slicer.")

    def drop(self, case: str, who: str, name: str) -> None:
        """Leave a structure out of a person's draft; raises NotFound if there is none of that name."""
        with self.alone:
            found = self.to_submit(case, who)
            now = self.structures(found)
            if name not in now.values:
                raise NotFound(f"'{case}' holds no structure '{name}'. Load the page again.")
            record = {key: value for key, value in found.record.items() if key != "final"}
            self._keep(self.drafts.keep, case, who, now.without(name), {**record, "when_s": self._campaign.now_s()})

    def back(self, case: str, who: str) -> None:
        """Take back the last change of a person's draft; raises NotFound if there is none, or it was submitted."""
        with self.alone:
            found = self.current(case, who)
            if found is None or found.record.get("final") or not self.drafts.back(case, who):
                raise NotFound(f"There is no change of '{case}' by {who} to take back.")

    def refuse_changed(self, case: str) -> None:
        """Raise LabelChanged where a case's final label is not the one that was submitted."""
        file, reading = self.final_label(case), self._campaign.state().case(case).reading(ReadingTask.ANNOTATE)
        if file is None or reading is None or not reading.sha256:
            return
        state = file.stat()
        if _sha256(file, state.st_mtime_ns, state.st_size) != reading.sha256:
            raise LabelChanged(CHANGED.format(reading.who))

    def name_again(self) -> None:
        """Give labels the names of their events again, where the store's list was lost and made anew from the files."""
        store = self._datastore()
        for case in self._campaign.state().cases.values():
            for reading in case.readings:
                info, named = store.get_label_info(case.name, reading.tag), reading.data.get("label_info")
                if not info or not named or "user" in info:
                    continue
                if file_sha256(Path(store.get_label_uri(case.name, reading.tag))) == reading.sha256:
                    store.update_label_info(case.name, reading.tag, {"label_info": named, "user": reading.who})

    def final_label(self, case: str) -> Path | None:
        """Return the file of a case's final label, or None."""
        file = self._datastore().get_label_uri(case, FINAL)
        return Path(file) if file else None


@lru_cache(maxsize=1 << 16)
def _sha256(file: Path, changed_ns: int, size: int) -> str:
    """Return a file's hash, computed once for each time that it changed."""
    return file_sha256(file)


def _replaced(label: Path, case: str) -> dict[str, MaskDraft]:
    """Return the labels that a final one replaced, newest first."""
    records = sorted((label.parent.parent / VERSIONS / FINAL / case).glob("*.json"), reverse=True)
    files = {path: path.with_suffix("") for path in records}
    return {
        f"label replaced at {file.name.partition('.')[0]}": MaskDraft(
            file, json.loads(path.read_text(encoding="utf-8"))
        )
        for path, file in files.items()
        if file.is_file()
    }
