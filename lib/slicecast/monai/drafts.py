"""The last mask a model made for each case and person, kept until it is submitted: OHIF has no Submit button."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slicecast.errors import NotFound
from slicecast.monai.versions import place_file, write_atomically

ENDINGS = (".nii.gz", ".nrrd", ".nii", ".mha")


@dataclass(frozen=True, slots=True)
class Draft:
    """A kept mask.

    Args:
        file: the mask.
        record: who, when_s, model and the answer's params.
    """

    file: Path
    record: dict[str, Any]


class Drafts:
    """Kept masks in a folder; the names of files say nothing about people.

    Args:
        folder: made when first needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, case: str, who: str, mask: Path, record: dict[str, Any]) -> None:
        """Keep a copy of a mask; the person's earlier one for this case goes."""
        stem = self._stem(case, who)
        stem.parent.mkdir(parents=True, exist_ok=True)
        ending = next(ending for ending in ENDINGS if mask.name.endswith(ending))
        target = stem.with_name(stem.name + ending)
        place_file(mask, target)
        content = {**record, "who": who, "case": case, "file": target.name}
        write_atomically(stem.with_name(stem.name + ".json"), json.dumps(content, default=str).encode())

    def find(self, case: str, who: str) -> Draft | None:
        """Return a person's draft, or None."""
        record = self._stem(case, who)
        return self._open(record.with_name(record.name + ".json"))

    def latest(self, case: str) -> Draft | None:
        """Return the newest draft of a case, whoever made it, or None."""
        found = [self._open(path) for path in self._case(case).glob("*.json")]
        return max((draft for draft in found if draft), key=lambda draft: draft.record["when_s"], default=None)

    def require(self, case: str, who: str) -> Draft:
        """Return a person's draft.

        Raises:
            NotFound: there is none.
        """
        draft = self.find(case, who)
        if draft is None:
            raise NotFound(f"There is no draft of '{case}' by {who} to submit. Segment it first, in OHIF or Slicer.")
        return draft

    def _open(self, record: Path) -> Draft | None:
        if not record.is_file():
            return None
        content = json.loads(record.read_text(encoding="utf-8"))
        file = record.with_name(content["file"])
        return Draft(file, content) if file.is_file() else None

    def _case(self, case: str) -> Path:
        return self._folder / hashlib.sha256(case.encode()).hexdigest()[:24]

    def _stem(self, case: str, who: str) -> Path:
        return self._case(case) / hashlib.sha256(who.encode()).hexdigest()[:24]
