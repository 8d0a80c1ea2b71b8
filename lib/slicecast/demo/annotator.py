"""An annotator who works through MONAI Label's own client: looks, clicks where the mask is most wrong, submits.

The truth plays the annotator's eye. Clicks follow `prompts.simulate`: the deepest point of the largest error.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.client import MONAILabelClient

from slicecast.errors import Conflict, UnknownImage
from slicecast.prompts.simulate import Click, next_click
from slicecast.volume import Geometry, Volume, read_volume, write_mask
from slicecast.volume.metrics import dice

GOOD_DICE = 0.9  # The annotator is content with this


@dataclass(frozen=True, slots=True, eq=False)
class SampleCase:
    """What the annotator knows of one image."""

    id: str
    volume: Volume
    truth: np.ndarray  # uint8 [k, j, i], on the image's grid
    names: Mapping[int, str]  # the structure of each value in `truth`

    @property
    def present(self) -> dict[int, str]:
        """The structures that this image shows."""
        return {value: name for value, name in self.names.items() if (self.truth == value).any()}


@dataclass(frozen=True, slots=True, eq=False)
class ObjectRecord:
    """How one structure of one image went; `mask` is bool [k, j, i]."""

    case: str
    name: str
    clicks: tuple[Click, ...]
    dice: tuple[float, ...]
    seconds: tuple[float, ...]
    mask: np.ndarray = field(repr=False)

    @property
    def final_dice(self) -> float:
        """Dice after the last click; 0 without any."""
        return self.dice[-1] if self.dice else 0.0


@dataclass(frozen=True, slots=True)
class Annotator:
    """A person at a client."""

    client: MONAILabelClient
    folder: Path  # for files on the way
    most_clicks: int = 5  # per structure

    def work(
        self, case_of: Callable[[str], SampleCase], *, strategy: str = "first"
    ) -> list[tuple[SampleCase, list[ObjectRecord]]]:
        """Annotate and submit what the server offers, until it offers nothing more."""
        done: list[tuple[SampleCase, list[ObjectRecord]]] = []
        while sample := self.client.next_sample(strategy, {}):
            case = case_of(sample["id"])
            if case.id in [earlier.id for earlier, _ in done]:
                raise Conflict(f"The server offers '{case.id}' again, although its label was submitted.")
            records = self.annotate(case)
            self.submit(case, records)
            done.append((case, records))
        return done

    def annotate(self, case: SampleCase) -> list[ObjectRecord]:
        """Click every structure: first all at once, then each on its own."""
        records = self.click_all(case)
        return [self._refine(case, value, records[name]) for value, name in case.present.items()]

    def submit(self, case: SampleCase, records: list[ObjectRecord]) -> None:
        """Save the masks as the image's final label, and look whether the server has just that."""
        merged = merge(case, records)
        file = write_mask(self.folder / f"{case.id}.nii.gz", merged, case.volume.geometry)
        info = [{"name": name, "idx": value} for value, name in case.present.items()]
        self.client.save_label(case.id, str(file), tag="final", params={"label_info": info})
        stored = read_volume(self.client.download_label(case.id, "final"))
        if not np.array_equal(stored.array, merged):
            raise Conflict(f"The stored label of '{case.id}' is not the one that was submitted.")

    def click_all(self, case: SampleCase, *, model: str = "sam2") -> dict[str, ObjectRecord]:
        """Give every structure its first click, in one request of a model for several labels."""
        nothing = np.zeros(case.truth.shape, bool)
        clicks = {name: _click(case, value, nothing) for value, name in case.present.items()}
        params = {name: [list(click.index)] for name, click in clicks.items() if click}
        mask, answer, seconds = self._infer(model, case, params)
        found = {name: mask == answer["objects"][name]["value"] for name in params}
        return {
            name: _with(_empty(case, name), click, found[name], truth=case.truth == value, seconds=seconds)
            for (value, name), click in zip(case.present.items(), clicks.values(), strict=True)
            if click
        }

    def _refine(self, case: SampleCase, value: int, record: ObjectRecord) -> ObjectRecord:
        """Correct one structure until it is good, nothing is left to correct, or patience ends."""
        while record.final_dice < GOOD_DICE and len(record.clicks) < self.most_clicks:
            click = _click(case, value, record.mask)
            if click is None or click in record.clicks:
                return record
            clicks = (*record.clicks, click)
            params = {
                "label": record.name,
                "foreground": [list(c.index) for c in clicks if c.positive],
                "background": [list(c.index) for c in clicks if not c.positive],
            }
            mask, _, seconds = self._infer("sam2_single", case, params)
            record = _with(record, click, mask != 0, truth=case.truth == value, seconds=seconds)
        return record

    def _infer(self, model: str, case: SampleCase, params: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any], float]:
        start = time.perf_counter()
        file, answer = self.client.infer(model, case.id, {**params, "result_extension": ".nrrd"})
        seconds = time.perf_counter() - start
        volume = read_volume(file)
        Path(file).unlink()
        _require_same_grid(volume.geometry, case)
        return volume.array, answer, seconds


def merge(case: SampleCase, records: list[ObjectRecord]) -> np.ndarray:
    """Put the masks into one uint8 array [k, j, i] with the truth's values; a later structure wins."""
    merged = np.zeros(case.truth.shape, np.uint8)
    values = {name: value for value, name in case.names.items()}
    for record in records:
        merged[record.mask] = values[record.name]
    return merged


def _click(case: SampleCase, value: int, mask: np.ndarray) -> Click | None:
    return next_click(case.truth == value, mask, spacing=case.volume.geometry.spacing_mm)


def _empty(case: SampleCase, name: str) -> ObjectRecord:
    return ObjectRecord(case.id, name, (), (), (), np.zeros(case.truth.shape, bool))


def _with(record: ObjectRecord, click: Click, mask: np.ndarray, *, truth: np.ndarray, seconds: float) -> ObjectRecord:
    """Add a click and what came of it; a structure is judged by its last mask, better or worse."""
    return replace(
        record,
        clicks=(*record.clicks, click),
        dice=(*record.dice, dice(truth, mask)),
        seconds=(*record.seconds, seconds),
        mask=mask,
    )


def _require_same_grid(geometry: Geometry, case: SampleCase) -> None:
    differences = geometry.differences(case.volume.geometry)
    if differences:
        raise UnknownImage(f"The answer for '{case.id}' lies on another grid: {'; '.join(differences)}.")
