"""Promote weights: put a candidate in the bundled model's place if it is shown not to be worse.

Candidate and present weights answer the same prompts on the same cases. The cases' differences in Dice are averaged,
with a bootstrap interval over scans. A candidate whose mean difference is below zero is refused.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slicecast.config import config_dir, project_dir
from slicecast.errors import Conflict
from slicecast.inference.segment import SegmentService
from slicecast.models.registry import REGISTRY_FILE, ModelSpec, bundled_spec
from slicecast.models.sam2 import load_predictor
from slicecast.models.weights import weights_path
from slicecast.volume import read_volume
from slicecast_lab.evaluation.cases import CaseFiles, read_case
from slicecast_lab.evaluation.prompts import pick_slice, play
from slicecast_lab.evaluation.report import Mean, bootstrap_mean
from slicecast_lab.evaluation.run import Progress
from slicecast_lab.evaluation.settings import Settings, parse_prompt

PROMPTS = ("mask", "box", "clicks:3")

FLOOR_CASES = ("ct_abdomen_b-spleen", "ct_abdomen_a-kidney_left", "mr_brain_a-brain_lesion", "mr_brain_b-cerebellum")
"""The sample structures on which `floors` of the registry hold: one of each scan, so that their test stays short."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two weights files on the same cases."""

    present: dict[str, float]  # mean Dice of the present weights, by prompt
    candidate: dict[str, float]  # of the candidate
    difference: Mean  # candidate minus present, over all prompts, paired by case

    @property
    def verdict(self) -> str:
        """``better`` or ``worse`` where the interval leaves zero out, else ``undecided``."""
        return "better" if self.difference.low > 0 else "worse" if self.difference.high < 0 else "undecided"

    @property
    def acceptable(self) -> bool:
        """Whether the candidate is not worse."""
        return self.difference.value >= 0


def sample_cases() -> list[CaseFiles]:
    """Return every structure of the sample scans; those of one scan form a group."""
    root = project_dir("sample-data")
    names = {value: name for name, value in json.loads((root / "dataset.json").read_text())["labels"].items()}
    cases = []
    for image in sorted((root / "studies").glob("*.nii.gz")):
        scan, label = image.name.removesuffix(".nii.gz"), root / "truth" / image.name
        values = np.unique(read_volume(label).array)
        cases += [CaseFiles(f"{scan}-{names[int(v)]}", image, label, (int(v),), scan) for v in values if v]
    return cases


def dice_by_prompt(
    spec: ModelSpec,
    cases: Sequence[CaseFiles],
    *,
    prompts: Sequence[str] = PROMPTS,
    device: str = "auto",
    progress: Progress = lambda done, total, name: None,
) -> dict[str, list[float]]:
    """Return the Dice of each case from each prompt on its largest slice."""
    service = SegmentService(predictor=load_predictor(spec, device=device))
    scores: dict[str, list[float]] = {prompt: [] for prompt in prompts}
    for done, files in enumerate(cases):
        progress(done, len(cases), files.id)
        case = read_case(files)
        for prompt in prompts:
            kind, clicks = parse_prompt(prompt)
            answers = play(case, service, Settings(prompt=kind, clicks=clicks), pick_slice(case, "largest"))
            scores[prompt].append(answers[-1].dice)
    return scores


def compare(
    present: Mapping[str, Sequence[float]], candidate: Mapping[str, Sequence[float]], groups: Sequence[str]
) -> Comparison:
    """Compare two answers of `dice_by_prompt` for the same cases, whose groups are given."""
    gains = np.mean([np.subtract(candidate[prompt], present[prompt]) for prompt in present], axis=0)
    means = [{prompt: float(np.mean(values)) for prompt, values in scores.items()} for scores in (present, candidate)]
    return Comparison(means[0], means[1], bootstrap_mean(gains.tolist(), groups))


def require_acceptable(comparison: Comparison) -> None:
    """Refuse a candidate that is worse; raises Conflict if its mean Dice is lower."""
    if not comparison.acceptable:
        gain = comparison.difference
        raise Conflict(
            f"The candidate's Dice is not as good: {gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})."
            " Nothing was changed; --force replaces the weights all the same."
        )


def promote(candidate: ModelSpec, changes: Mapping[str, Any] | None = None) -> Path:
    """Copy a candidate's file to the bundled model's place, and its size, SHA-256 and `changes` to the registry."""
    present = bundled_spec()
    target, registry = weights_path(present), config_dir() / REGISTRY_FILE
    entry = {**(changes or {}), "bytes": candidate.bytes, "sha256": candidate.sha256}
    text = with_settings(registry.read_text(encoding="utf-8"), present.name, entry)
    _replace_file(target, weights_path(candidate).read_bytes())
    _replace_file(registry, text.encode())
    return target


def with_settings(text: str, name: str, settings: Mapping[str, Any]) -> str:
    """Return the registry's text with settings of one entry changed or added; all else, comments too, stays."""
    found = re.search(rf"(?m)^  {re.escape(name)}:\n(?:    .*\n|\n)+", text)
    if found is None:
        raise Conflict(f"{REGISTRY_FILE} has no entry {name!r} in the usual form. Change it by hand.")
    entry = found[0]
    for key, value in settings.items():
        line = f"    {key}: {json.dumps(value) if not isinstance(value, str) else value}\n"
        old = re.search(rf"(?m)^    {re.escape(key)}: .*\n", entry)
        entry = entry.replace(old[0] if old else "    bytes: ", line if old else f"{line}    bytes: ", 1)
    return text[: found.start()] + entry + text[found.end() :]


def _replace_file(target: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all."""
    part = target.with_name(f".{target.name}.part")
    part.write_bytes(content)
    part.replace(target)
