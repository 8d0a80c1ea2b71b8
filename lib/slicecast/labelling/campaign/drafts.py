"""Drafts: what each person has so far of each case, to be submitted from the page, for OHIF has no Submit button."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from slicecast.labelling.store.versions import place_file, write_atomically

ENDINGS = (".nii.gz", ".nrrd", ".nii", ".mha")

NAME = 24
"""Letters of a hash in a file's name."""


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
        """Keep a copy of a mask in place of the person's last draft."""
        _write(self._stem(case, who), mask, {**record, "who": who, "case": case})

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
    if not record.is_file():
        return None
    content = json.loads(record.read_text(encoding="utf-8"))
    file = record.with_name(content["file"])
    return MaskDraft(file, content) if file.is_file() else None


def _first(stem: Path) -> Path:
    return _beside(stem, "-first")


def _beside(stem: Path, ending: str) -> Path:
    return stem.with_name(stem.name + ending)


def _write(stem: Path, mask: Path, record: dict[str, Any]) -> None:
    """Write a mask under a new name, then the record that names it: a crash leaves the old draft or the new one."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    ending = next(ending for ending in ENDINGS if mask.name.endswith(ending))
    target, before = _beside(stem, f"-{uuid4().hex[:12]}{ending}"), _open(_beside(stem, ".json"))
    place_file(mask, target)
    write_atomically(_beside(stem, ".json"), json.dumps({**record, "file": target.name}, default=str).encode())
    if before is not None:
        before.file.unlink(missing_ok=True)
