"""Drafts: the last mask of each case and person, to be submitted from the page, for OHIF has no Submit button."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slicecast.errors import NotFound
from slicecast.labelling.store.versions import place_file, write_atomically

ENDINGS = (".nii.gz", ".nrrd", ".nii", ".mha")


@dataclass(frozen=True, slots=True)
class MaskDraft:
    """A kept mask.

    Args:
        file: the mask.
        record: who, when_s, model and the answer's params.
    """

    file: Path
    record: dict[str, Any]


class Drafts:
    """Drafts in a folder; the files' names are hashes, so that they tell nothing about people.

    Args:
        folder: made when first needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, case: str, who: str, mask: Path, record: dict[str, Any]) -> None:
        """Keep a copy of a mask in place of the person's last draft; the first one since a submission stays too."""
        stem = self._stem(case, who)
        stem.parent.mkdir(parents=True, exist_ok=True)
        for target in (stem, *([] if self.first(case, who) else [_first(stem)])):
            _write(target, mask, {**record, "who": who, "case": case})

    def first(self, case: str, who: str) -> MaskDraft | None:
        """Return a person's first draft since they last submitted the case, or None."""
        return self._open(_beside(_first(self._stem(case, who)), ".json"))

    def forget_first(self, case: str, who: str) -> None:
        """Remove the first draft, so that the next one becomes the first."""
        draft = self.first(case, who)
        if draft is not None:
            _beside(_first(self._stem(case, who)), ".json").unlink(missing_ok=True)
            draft.file.unlink(missing_ok=True)

    def find(self, case: str, who: str) -> MaskDraft | None:
        """Return a person's draft, or None."""
        return self._open(_beside(self._stem(case, who), ".json"))

    def latest(self, case: str) -> MaskDraft | None:
        """Return the newest draft of a case by anybody, or None."""
        found = [self._open(path) for path in self._case(case).glob("*.json")]
        return max((draft for draft in found if draft), key=lambda draft: draft.record["when_s"], default=None)

    def require(self, case: str, who: str) -> MaskDraft:
        """Return a person's draft.

        Raises:
            NotFound: there is none.
        """
        draft = self.find(case, who)
        if draft is None:
            raise NotFound(f"There is no draft of '{case}' by {who} to submit. Segment it first, in OHIF or Slicer.")
        return draft

    def _open(self, record: Path) -> MaskDraft | None:
        if not record.is_file():
            return None
        content = json.loads(record.read_text(encoding="utf-8"))
        file = record.with_name(content["file"])
        return MaskDraft(file, content) if file.is_file() else None

    def _case(self, case: str) -> Path:
        return self._folder / hashlib.sha256(case.encode()).hexdigest()[:24]

    def _stem(self, case: str, who: str) -> Path:
        return self._case(case) / hashlib.sha256(who.encode()).hexdigest()[:24]


def _first(stem: Path) -> Path:
    return _beside(stem, "-first")


def _beside(stem: Path, ending: str) -> Path:
    return stem.with_name(stem.name + ending)


def _write(stem: Path, mask: Path, record: dict[str, Any]) -> None:
    target = _beside(stem, next(ending for ending in ENDINGS if mask.name.endswith(ending)))
    place_file(mask, target)
    write_atomically(_beside(stem, ".json"), json.dumps({**record, "file": target.name}, default=str).encode())
