"""How long it takes to score volumes in the background, and what the automatic prompt is worth.

    python -m slicecast_lab.benchmarks.volume_scoring --data ../shared/data/hippocampus --volumes 150

Scores volumes of the pool from one labelled case with the bundled model, in so many processes of one thread
(`--jobs`; a server uses one thread, while it is idle). Prints seconds (of the clock, and of all processes on the
CPU), and how well each score says how wrong the mask was. The mask is compared with two that need no model: the
support's label stretched onto the volume's box, and what the model makes of the support's boxes put at the same
places. The target is 150 volumes under 5 minutes on two cores.
"""

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from scipy.ndimage import zoom
from scipy.stats import spearmanr

from slicecast.config import data_dir
from slicecast.engine.propagation import segment
from slicecast.engine.support import boxed, drawn, match_support
from slicecast.inference.segment import SegmentService
from slicecast.inference.studies import open_study
from slicecast.labelling.volume_scores import Support, VolumeScorer, extent_of
from slicecast.volume import choose_axis
from slicecast.volume.metrics import dice
from slicecast_lab.evaluation.cases import TruthCase, find_cases, read_case


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=data_dir() / "hippocampus")
    parser.add_argument("--volumes", type=int, default=150)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--supports", type=int, default=2, help="labelled cases for the comparison of prompts")
    parser.add_argument("--compare", type=int, default=0, help="volumes whose prompts are compared")
    options = parser.parse_args()
    files = find_cases(options.data, (), split="pool")
    order = [files[int(n)] for n in np.random.default_rng(0).permutation(len(files))]
    cases = [read_case(file) for file in order]
    if options.compare:
        scorer = VolumeScorer(SegmentService().predictor)
        supports = [learn(scorer, case) for case in cases[: options.supports]]
        print(json.dumps(compare(scorer, supports, cases[options.supports :][: options.compare]), indent=1))
    if options.volumes:
        chosen = (cases[1:] + cases[:1])[: options.volumes]
        print(json.dumps(scored(chosen, cases[0], jobs=options.jobs), indent=1))


def learn(scorer: VolumeScorer, case: TruthCase) -> Support:
    """Remember a case."""
    return scorer.learn(case.files.id, open_study(case.volume), truth_of(case).astype(np.uint8), {"object": 0})


def truth_of(case: TruthCase) -> NDArray[np.bool_]:
    """Return a case's truth in canonical orientation."""
    return np.ascontiguousarray(case.turn.to_canonical_array(case.truth))


def scored(cases: list[TruthCase], support: TruthCase, *, jobs: int) -> dict[str, object]:
    """Score volumes; return seconds, and each score's rank correlation with 1 - Dice."""
    start = time.perf_counter()
    parts = Parallel(n_jobs=jobs)(delayed(scored_part)(cases[n::jobs], support) for n in range(jobs))
    clock = time.perf_counter() - start
    found = [entry for scores, _, _ in parts for entry in scores]
    errors = [error for _, wrong, _ in parts for error in wrong]
    spearman = {name: round(float(spearmanr([s[name] for s in found], errors)[0]), 2) for name in found[0]}
    return {
        "volumes": len(found),
        "processes": jobs,
        "clock_s": round(clock, 1),
        "cpu_s": round(sum(seconds for _, _, seconds in parts), 1),
        "mean_dice": round(1 - float(np.mean(errors)), 3),
        "spearman_with_error": spearman,
    }


def scored_part(cases: list[TruthCase], support: TruthCase) -> tuple[list[Mapping[str, float]], list[float], float]:
    """Score volumes one after the other; return the scores, 1 - Dice and the seconds on the CPU."""
    start = time.process_time()
    scorer = VolumeScorer(SegmentService().predictor)
    known = learn(scorer, support)
    found, errors = [], []
    for case in cases:
        study = open_study(case.volume)
        scorer.embed(study)
        result = scorer.score(study, known)
        found.append(result.scores)
        errors.append(1 - dice(result.masks["object"], truth_of(case)))
    return found, errors, time.process_time() - start


def compare(scorer: VolumeScorer, supports: list[Support], cases: list[TruthCase]) -> dict[str, str]:
    """Return the mean Dice and its standard error of each way to begin."""
    found: dict[str, list[float]] = {}
    for case in cases:
        truth, study = truth_of(case), open_study(case.volume)
        axis = choose_axis(study.volume.geometry)
        extent = extent_of(study, axis)
        for support in supports:
            tracker = scorer.tracker(study, axis)
            seen = match_support(tracker, support.slices["object"], extent)
            starts = {
                "boxes where memory finds it": [boxed(r.slice, r.box_xyxy) for r in seen],
                "masks that memory finds": [drawn(r.slice, r.mask) for r in seen if r.mask.any()],
                "boxes copied from the support": [boxed(r.slice, r.expected_xyxy) for r in seen],
            }
            for name, prompts in starts.items():
                given = list({p.slice: p for p in prompts}.values())
                made = segment(scorer.tracker(study, axis), {"object": sorted(given, key=lambda p: p.slice)})
                mask = np.zeros(truth.shape, dtype=bool)
                slices = np.moveaxis(mask, 2 - axis, 0)
                for number, label in made.labels.items():
                    slices[number] = label > 0
                found.setdefault(f"volume: {name}", []).append(dice(mask, truth))
            known = support.truth["object"]
            ratio = np.array(truth.shape) / np.array(known.shape)
            found.setdefault("volume: label stretched", []).append(
                dice(zoom(known.astype(float), ratio, order=1) > 0.5, truth)
            )
            for r in seen:
                found.setdefault("slice: memory", []).append(dice(r.mask, np.take(truth, r.slice, axis=2 - axis)))
    return {k: f"{np.mean(v):.3f} +- {np.std(v) / len(v) ** 0.5:.3f} (n={len(v)})" for k, v in found.items()}


if __name__ == "__main__":
    main()
