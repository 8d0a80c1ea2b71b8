"""What the confidence of slices is worth, and what calibrating it with submitted labels makes of it.

    python -m slicecast_lab.benchmarks.calibration  # 20 hippocampus cases of the pool; writes the page's tables
    python -m slicecast_lab.benchmarks.calibration --cases 40 --json build/results/calibration.json

Every case is prompted once, on the object's largest slice: painted, or with one click in its depth. Each slice that
was answered and not prompted gives a pair: its features, and its true IoU (1 where both masks are empty).
Every case is judged by what the other cases taught. The test cases are never looked at.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from slicecast.active.calibration import Pair, left_out, rank_correlation, reliability
from slicecast.config import data_dir, project_dir
from slicecast.inference.results import SegmentResult
from slicecast.inference.segment import SegmentRequest, SegmentService
from slicecast.models.registry import bundled_spec
from slicecast.volume.metrics import dice
from slicecast_lab.evaluation.cases import TruthCase, find_cases, read_case
from slicecast_lab.evaluation.page import markdown, source_line, write_blocks
from slicecast_lab.evaluation.prompts import pick_slice, play
from slicecast_lab.evaluation.provenance import command_line, provenance
from slicecast_lab.evaluation.report import write_json
from slicecast_lab.evaluation.settings import Settings, parse_prompt

ROOT = project_dir("docs").parent
PROMPTS = ("mask", "clicks:1")
RESAMPLES = 2000

Floats = NDArray[np.float64]


class RecordingService:
    """A service whose last answer is kept."""

    def __init__(self, service: SegmentService) -> None:
        self._service = service
        self.answers: list[SegmentResult] = []

    def segment(self, request: SegmentRequest) -> SegmentResult:
        """Carry out a request."""
        self.answers = [self._service.segment(request)]
        return self.answers[0]


def pairs_of(case: TruthCase, service: RecordingService, prompt: str) -> list[Pair]:
    """Prompt a case once; pair the features of each slice with its truth."""
    name, clicks = parse_prompt(prompt)
    play(case, service, Settings(prompt=name, clicks=clicks), pick_slice(case, "largest"))
    (result,) = service.answers
    found, truth = case.slices(result.mask == 1), case.slices(case.truth)
    pairs = []
    for entry in result.confidence:
        if entry.features is not None:
            number = case.stored_slice(entry.slice)
            shared = dice(found.slice(number), truth.slice(number))
            pairs.append(Pair(case.files.id, entry.features, shared / (2 - shared)))
    return pairs


def left_out_isotonic(pairs: Sequence[Pair]) -> Floats:
    """Return qualities by a rising curve of the raw confidence alone, each case by the others."""
    raw, iou = np.array([p.features.raw for p in pairs]), np.array([p.iou for p in pairs])
    names, quality = np.array([p.volume for p in pairs]), np.zeros(len(pairs))
    for name in sorted(set(names.tolist())):
        own = names == name
        curve = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(raw[~own], iou[~own])
        quality[own] = curve.predict(raw[own])
    return quality


WAYS: dict[str, Callable[[Sequence[Pair]], Floats]] = {
    "raw": lambda pairs: np.array([p.features.raw for p in pairs]),
    "isotonic of raw": left_out_isotonic,
    "ridge of five features": lambda pairs: left_out(pairs, curve=False),
    "ridge, then isotonic": lambda pairs: left_out(pairs, curve=True),
}
"""Ways to make a number of what is known of a slice, by name."""


def measure(pairs: Sequence[Pair], quality: Floats) -> dict[str, Any]:
    """Return the three numbers, the rank correlation's interval over cases, and that within cases."""
    iou, names = np.array([p.iou for p in pairs]), np.array([p.volume for p in pairs])
    places = {name: np.flatnonzero(names == name) for name in sorted(set(names.tolist()))}
    rng = np.random.default_rng(0)
    own = list(places.values())
    draws = rng.integers(0, len(own), (RESAMPLES, len(own)))
    drawn = (np.concatenate([own[n] for n in draw]) for draw in draws)
    low, high = np.percentile([rank_correlation(quality[d], iou[d]) for d in drawn], [2.5, 97.5])
    found = reliability(quality, iou)
    return {
        "spearman": found.spearman,
        "interval": [float(low), float(high)],
        "within": float(np.mean([rank_correlation(quality[p], iou[p]) for p in places.values()])),
        "ece": found.ece,
        "aurc": found.aurc,
        "bins": found.bins,
    }


def gather(cases: int) -> dict[str, Any]:
    """Measure all prompts."""
    service = RecordingService(SegmentService(model=bundled_spec().name))
    files = find_cases(data_dir() / "hippocampus", (), split="pool", limit=cases)
    found: dict[str, Any] = {}
    for prompt in PROMPTS:
        pairs = [pair for file in files for pair in pairs_of(read_case(file), service, prompt)]
        seen = np.array([p.features.seen for p in pairs])
        only = [p for p in pairs if p.features.seen]
        found[prompt] = {
            "slices": len(pairs),
            "seen": int(seen.sum()),
            "mean_iou": float(np.mean([p.iou for p in pairs])),
            "raw_where_seen": measure(only, WAYS["raw"](only)),
            "ways": {name: measure(pairs, way(pairs)) for name, way in WAYS.items()},
        }
    return {"cases": len(files), "prompts": found}


def blocks(found: dict[str, Any], source: dict[str, Any]) -> dict[str, str]:
    """Return the page's tables by name: one for each prompt, and where they come from."""
    made = f"{source_line(source)} {found['cases']} cases of the hippocampus pool."
    return {"source": made, **{prompt: section(found["prompts"][prompt]) for prompt in PROMPTS}}


def section(part: dict[str, Any]) -> str:
    """Return the table of one prompt."""
    rows = [_cells(name, entry) for name, entry in part["ways"].items()]
    rows.append(_cells(f"raw, only the {part['seen']} slices where it saw the object", part["raw_where_seen"]))
    seen = f"{part['slices']} slices, mean IoU {part['mean_iou']:.3f}; the model saw the object on {part['seen']}."
    return f"{seen}\n\n{markdown(rows)}"


def _cells(name: str, entry: dict[str, Any]) -> dict[str, str]:
    low, high = entry["interval"]
    return {
        "confidence": name,
        "Spearman": f"{entry['spearman']:.2f} [{low:.2f}, {high:.2f}]",
        "within a case": f"{entry['within']:.2f}",
        "ECE": f"{entry['ece']:.3f}",
        "AURC": f"{entry['aurc']:.3f}",
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "results" / "calibration.json")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "results" / "calibration.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = gather(given.cases)
    write_json(found, given.json)
    source = provenance(bundled_spec(), command_line("python -m slicecast_lab.benchmarks.calibration"), device="cpu")
    tables = blocks(found, source)
    print(*tables.values(), sep="\n\n")
    write_blocks(given.page, tables)


if __name__ == "__main__":
    main()
