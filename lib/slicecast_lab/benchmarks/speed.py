"""How long a click takes: the product, MONAI Label's own SAM 2 task, and SAM 2's video predictor driven directly.

    python -m slicecast_lab.benchmarks.speed  # everything (make bench); prints the tables, writes them into the page
    python -m slicecast_lab.benchmarks.speed --quick  # a few slices, once: does it work at all?
    python -m slicecast_lab.benchmarks.speed --only tiny --only server

Each contestant works in a process of its own, with the same weights, file, clicks and number of threads; they take
turns, and ratios are of the same round. The seconds run from the scan's file to the mask's, with the network loaded.
Figures are kept part by part in build/bench/speed/; the page's tables are written from what is there.
"""

import argparse
import cProfile
import json
import multiprocessing
import os
import pstats
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import numpy as np
import torch
import yaml

from slicecast.config import CONFIGS_VARIABLE, config_dir, project_dir
from slicecast.engine.options import EngineOptions
from slicecast.files import file_sha256
from slicecast.inference.segment import SegmentRequest, SegmentService
from slicecast.models.registry import bundled_spec
from slicecast.models.sam2 import load_predictor
from slicecast.models.sam2_build import build_sam2
from slicecast.models.weights import choose_model
from slicecast.prompts import ObjectPrompts, Point, PromptSet
from slicecast.volume import read_volume, write_mask
from slicecast_lab.benchmarks.speed_page import Figures, speed_tables
from slicecast_lab.benchmarks.speed_scans import CLIP_SLICES, IJK, SpeedScan, few_slices, write_scan
from slicecast_lab.evaluation.monailabel import MonaiLabelProcess
from slicecast_lab.evaluation.page import write_blocks
from slicecast_lab.evaluation.provenance import command_line, peak_rss_mib, provenance
from slicecast_lab.evaluation.report import write_json
from slicecast_lab.evaluation.video import load_video_tracker

ROOT = project_dir("docs").parent
NANO_THREADS, TINY_THREADS = 1, 2
TINY, TINY_512, TINY_YAML = "random_tiny", "random_tiny_512", "configs/sam2.1/sam2.1_hiera_t.yaml"
REPEATS = {"ct": 3, "mr": 3, "large": 2, "clip": 1}
QUICK_SLICES = {"ct": 10, "mr": 10, "large": 8, "clip": 3}
MIDDLE, CORRECTION, BEFORE_LATE, LATE, BEGINNING, FIRST_SLICE = 0, 1, 5, 6, 3, 6  # Places in Target.clicks

NO_STOP = {"gone_slices": 0, "like_share": 0.0, "least_iou": 0.0}
WHOLE = {**NO_STOP, "zoom": "off", "evidence": "off"}
"""Options with which the product does the work that SAM 2 does: every slice, whole, and nothing else."""

WINDOW = "0:255"  # The grey values that the others see
OPERATIONS = 8  # Listed in a profile

T = TypeVar("T")
Clicks = Mapping[str, Sequence[IJK]]  # Voxels on each object


@dataclass(frozen=True, slots=True)
class Timing:
    """What one request cost."""

    seconds: float  # from the scan's file to the mask's
    peak_mib: int  # most memory that the process has had so far
    voxels: int  # in the mask
    propagated: int = 0  # slices; 0 where the contestant does not say
    recomputed: int = 0  # slices; 0 where the contestant does not say
    encoded: int = 0  # slices; 0 where the contestant does not say
    parts: dict[str, float] = field(default_factory=dict)  # seconds of each part of the work


class Product:
    """The product, as a program uses it: one service, nothing in its caches after `fresh`."""

    def __init__(self, model: str) -> None:
        self._predictor = load_predictor(choose_model(model), device="cpu", openvino=True)
        self.fresh()

    def fresh(self) -> None:
        """Forget everything but the network."""
        self._service = SegmentService(predictor=self._predictor)

    def segment(self, image: Path, clicks: Clicks, options: Mapping[str, Any] | None = None) -> Timing:
        """Segment from all clicks so far; what an earlier request worked out is used."""
        objects = [ObjectPrompts(name, points=tuple(map(Point, places))) for name, places in clicks.items()]
        start = time.perf_counter()
        prompts, settings = PromptSet(tuple(objects)), EngineOptions(**(options or {}))
        result = self._service.segment(SegmentRequest(image, prompts, window=WINDOW, options=settings))
        write_mask(image.with_suffix(".ours.nii.gz"), result.mask, result.geometry)
        seconds = time.perf_counter() - start
        counts = (result.slices_walked, result.slices_recomputed, result.slices_encoded)
        return Timing(seconds, peak_rss_mib(), int((result.mask > 0).sum()), *counts, parts=dict(result.seconds))

    def profile(self, image: Path, clicks: Clicks, options: Mapping[str, Any] | None = None) -> list[tuple[str, float]]:
        """Return the network's calls with all that they call, then the functions with the most time of their own.

        As shares of the whole request; cProfile makes small functions look larger than they are.
        """
        with cProfile.Profile() as seen:
            self.segment(image, clicks, options)
        seen.create_stats()
        spent = {key: (own, whole) for key, (_, _, own, whole, _) in pstats.Stats(seen).stats.items()}  # type: ignore[attr-defined]
        total = sum(own for own, _ in spent.values())
        network = [
            (f"{name} (with all below)", whole / total)
            for (file, _, name), (_, whole) in spent.items()
            if Path(file).name == "sam2.py" and name in ("encode", "prompt", "track")
        ]
        largest = sorted(spent, key=lambda key: -spent[key][0])[:OPERATIONS]
        return network + [(_called(key), spent[key][0] / total) for key in largest]


def _called(key: tuple[str, int, str]) -> str:
    file, _, name = key
    return name.strip("<>").replace("built-in method ", "") if file == "~" else f"{Path(file).stem}.{name}"


class Direct:
    """SAM 2's video predictor, driven as its examples do: clicks, then forwards, then backwards."""

    def __init__(self, model: str) -> None:
        self._tracker = load_video_tracker(choose_model(model), device="cpu")

    def segment(self, image: Path, clicks: Clicks) -> Timing:
        """Segment one object over the whole volume."""
        (places,) = clicks.values()
        start = time.perf_counter()
        volume = read_volume(image)
        mask = np.zeros(volume.array.shape, dtype=np.uint8)
        with self._tracker.open(list(volume.array.astype(np.uint8))) as clip:
            for number in sorted({k for _, _, k in places}):
                here = [(i, j) for i, j, k in places if k == number]
                clip.click(number, here, [1] * len(here))
            for reverse in (False, True):
                for number, logits in clip.propagate(reverse=reverse):
                    mask[number] = logits > 0
        write_mask(image.with_suffix(".direct.nii.gz"), mask, volume.geometry)
        return Timing(time.perf_counter() - start, peak_rss_mib(), int((mask > 0).sum()), propagated=len(mask))


CONTESTANTS = {"ours": Product, "direct": Direct}


class Contestant:
    """One of CONTESTANTS in a fresh process; a context manager.

    Args:
        model: name in the registry.
        threads: of PyTorch.
    """

    def __init__(self, kind: Literal["ours", "direct"], model: str, *, threads: int) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, mp_context=spawn, initializer=_start, initargs=(kind, model, threads))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def ask(self, method: str, *values: Any) -> Any:
        """Call a method there."""
        return self._pool.submit(_ask, method, values).result()


def in_its_own_process(work: Callable[..., T], *values: Any) -> T:
    """Call a function in a fresh process, so that its memory is gone afterwards."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *values).result()


def _start(kind: str, model: str, threads: int) -> None:
    torch.set_num_threads(threads)
    _here["contestant"] = CONTESTANTS[kind](model)


def _ask(method: str, values: tuple[Any, ...]) -> Any:
    return getattr(_here["contestant"], method)(*values)


_here: dict[str, Any] = {}  # Of a process of `Contestant`: what it runs


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured: where files go, and whether only to try."""

    folder: Path
    quick: bool
    clip_slices: int = CLIP_SLICES

    def scan(self, key: str) -> SpeedScan:
        """Write a scan, cut to as many slices as wanted."""
        scan = in_its_own_process(write_scan, key, self.folder)
        wanted = QUICK_SLICES[key] if self.quick else self.clip_slices if key == "clip" else scan.slices
        return few_slices(scan, wanted, self.folder) if wanted < scan.slices else scan

    def repeats(self, key: str) -> int:
        """Return how often all contestants take their turn."""
        return 1 if self.quick else REPEATS[key]


class Round:
    """One turn of all contestants on one scan, under a new name."""

    def __init__(self, contestants: dict[str, Any], scan: SpeedScan, number: int) -> None:
        self._contestants = contestants
        self.image = Path(shutil.copy(scan.image, scan.image.with_name(f"{scan.key}-{number}.nii.gz")))
        self._theirs = self.image
        self.timings: dict[str, dict[str, Any]] = {}

    def ours(self, figure: str, clicks: Sequence[IJK], *, fresh: bool = False, options: Figures | None = None) -> None:
        """Ask the product."""
        if fresh:
            self._contestants["ours"].ask("fresh")
        self._keep("ours", figure, self._contestants["ours"].ask("segment", self.image, {"object": clicks}, options))

    def direct(self, figure: str, clicks: Sequence[IJK]) -> None:
        """Ask SAM 2's predictor."""
        self._keep("direct", figure, self._contestants["direct"].ask("segment", self.image, {"object": clicks}))

    def theirs(self, figure: str, clicks: Sequence[IJK], *, fresh: bool = False) -> None:
        """Ask MONAI Label's task; a later prompt goes to the state that it keeps, which is its fastest way."""
        if fresh:
            self._theirs = Path(shutil.copy(self.image, self.image.with_name(f"{figure}-{self.image.name}")))
        found = self._contestants["theirs"].segment(self._theirs, foreground=clicks, reset=fresh)
        propagated = int(found.mask.shape[0] - min(k for _, _, k in clicks))
        self._keep("theirs", figure, Timing(found.seconds, found.peak_rss_mib, int(found.mask.sum()), propagated))

    def _keep(self, who: str, figure: str, timing: Timing) -> None:
        self.timings.setdefault(figure, {})[who] = asdict(timing)
        print(f"  {figure:12} {who:7} {timing.seconds:7.2f} s  {timing.propagated} slices", file=sys.stderr, flush=True)


def contest(
    scan: SpeedScan,
    model: str,
    threads: int,
    repeats: int,
    play: Callable[[Round, SpeedScan], None],
    *,
    ours: str = "",
) -> Figures:
    """Let all contestants take turns on a scan, after a warm-up on another one of theirs.

    Args:
        ours: the product's model, if it is another one.
    """
    with ExitStack() as stack:
        contestants = {
            "ours": stack.enter_context(Contestant("ours", ours or model, threads=threads)),
            "direct": stack.enter_context(Contestant("direct", model, threads=threads)),
            "theirs": stack.enter_context(MonaiLabelProcess(model, threads=threads)),
        }
        short = few_slices(scan, 2, scan.image.parent)
        warm, clicks = Round(contestants, short, -1), short.objects[0].clicks[:1]
        warm.ours("warm-up", clicks)
        warm.direct("warm-up", clicks)
        warm.theirs("warm-up", clicks, fresh=True)
        rounds = [Round(contestants, scan, number) for number in range(repeats)]
        for each in rounds:
            play(each, scan)
    return {
        "title": scan.title,
        "slices": scan.slices,
        "span": scan.objects[0].slices,
        "turns": [each.timings for each in rounds],
    }


def play_bundled(turn: Round, scan: SpeedScan) -> None:
    """First click, correction, late correction; the same from a click near the object's beginning; the whole volume."""
    clicks = scan.objects[0].clicks
    turn.ours("first", clicks[:1], fresh=True)
    turn.theirs("first", clicks[:1], fresh=True)
    turn.ours("correction", clicks[:2])
    turn.theirs("correction", clicks[:2])
    if scan.key != "large":
        turn.ours("before late", clicks[:BEFORE_LATE])
        turn.ours("late", clicks[:LATE])
        turn.theirs("late", clicks[:LATE])
    turn.ours("beginning", [clicks[BEGINNING]], fresh=True)
    turn.theirs("beginning", [clicks[BEGINNING]], fresh=True)
    turn.ours("whole", clicks[:1], fresh=True, options=WHOLE)
    turn.direct("whole", clicks[:1])


def play_tiny(turn: Round, scan: SpeedScan) -> None:
    """The same work for all: a click on the first slice, no stop rule; then a correction."""
    first, corrected = scan.objects[0].clicks[FIRST_SLICE], scan.objects[0].clicks[CORRECTION]
    turn.ours("whole", [first], fresh=True, options=NO_STOP)
    turn.direct("whole", [first])
    turn.theirs("whole", [first], fresh=True)
    turn.ours("correction", [first, corrected], options=NO_STOP)
    turn.theirs("correction", [first, corrected])


def measure_scan(key: str, effort: Effort) -> Figures:
    """Measure a scan with the bundled model."""
    return contest(effort.scan(key), bundled_spec().name, NANO_THREADS, effort.repeats(key), play_bundled)


def measure_tiny(effort: Effort) -> Figures:
    """Measure the SAM 2.1 tiny architecture at 1024 pixels, with random weights."""
    with random_tiny(effort.folder):
        return contest(effort.scan("clip"), TINY, TINY_THREADS, effort.repeats("clip"), play_tiny)


def measure_small(effort: Effort) -> Figures:
    """Measure the same network at 512 pixels in a window, against the others at 1024."""
    with random_tiny(effort.folder):
        threads, repeats = TINY_THREADS, effort.repeats("clip")
        return contest(effort.scan("clip"), TINY, threads, repeats, play_small, ours=TINY_512)


def play_small(turn: Round, scan: SpeedScan) -> None:
    """Click on the first slice, without a stop rule, then correct; as MONAI Label's task does."""
    first, corrected = scan.objects[0].clicks[FIRST_SLICE], scan.objects[0].clicks[CORRECTION]
    turn.ours("first", [first], fresh=True, options=NO_STOP)
    turn.theirs("first", [first], fresh=True)
    turn.ours("correction", [first, corrected], options=NO_STOP)
    turn.theirs("correction", [first, corrected])


@contextmanager
def random_tiny(folder: Path) -> Iterator[None]:
    """Let the settings' folder be one that knows TINY and TINY_512."""
    os.environ[CONFIGS_VARIABLE] = str(in_its_own_process(write_random_tiny, folder))
    try:
        yield
    finally:
        del os.environ[CONFIGS_VARIABLE]


def write_random_tiny(folder: Path) -> Path:
    """Write seeded random weights, and settings that know them; return the settings' folder."""
    torch.manual_seed(0)
    weights = folder / "random.pt"
    torch.save({"model": build_sam2(TINY_YAML).state_dict()}, weights)
    configs = Path(shutil.copytree(config_dir(), folder / "configs"))
    registry = yaml.safe_load((configs / "models.yaml").read_text(encoding="utf-8"))
    entry = {
        "title": "SAM 2.1 tiny with random weights",
        "architecture": TINY_YAML,
        "image_size": 1024,
        "file": weights.name,
        "folder": str(folder),
        "url": f"https://localhost.invalid/{weights.name}",
        "bytes": weights.stat().st_size,
        "sha256": file_sha256(weights),
        "licence": "none needed",
    }
    registry["models"] |= {TINY: entry, TINY_512: {**entry, "image_size": 512, "zoom": True}}
    (configs / "models.yaml").write_text(yaml.safe_dump(registry), encoding="utf-8")
    return configs


def measure_objects(effort: Effort) -> Figures:
    """Compare three objects at once with each alone: as it comes, and with whole slices, encoded once for all."""
    scan = in_its_own_process(write_scan, "ct", effort.folder)
    clicks = {f"object {n}": target.clicks[:1] for n, target in enumerate(scan.objects[:3])}
    turns = []
    with Contestant("ours", bundled_spec().name, threads=NANO_THREADS) as ours:

        def alone(clicks: Clicks, options: Figures) -> Figures:
            ours.ask("fresh")
            return asdict(ours.ask("segment", scan.image, clicks, options))

        for _ in range(1 if effort.quick else 3):
            turn = {}
            for name, options in (("zoom", {}), ("no zoom", {"zoom": "off"})):
                each = [alone({key: clicks[key]}, options) for key in clicks]
                turn[name] = {"three": alone(clicks, options), "each": each}
            turns.append(turn)
    return {"title": scan.title, "objects": len(clicks), "turns": turns}


def measure_profiles(effort: Effort) -> Figures:
    """Profile the product: the network's calls, and functions by their own time."""
    found = {}
    scan = effort.scan("ct")
    clicks = scan.objects[0].clicks
    with Contestant("ours", bundled_spec().name, threads=NANO_THREADS) as ours:
        one = {"object": clicks[:1]}
        ours.ask("segment", scan.image, one)
        ours.ask("fresh")
        found["bundled model, first click, 3 mm CT"] = ours.ask("profile", scan.image, one)
        found["bundled model, correction, 3 mm CT"] = ours.ask("profile", scan.image, {"object": clicks[:2]})
        scan = effort.scan("mr")
        clicks = scan.objects[0].clicks
        found["bundled model, first click, MR"] = ours.ask("profile", scan.image, {"object": clicks[:1]})
        found["bundled model, correction, MR"] = ours.ask("profile", scan.image, {"object": clicks[:2]})
    with random_tiny(effort.folder), Contestant("ours", TINY, threads=TINY_THREADS) as ours:
        short = few_slices(effort.scan("clip"), 3, effort.folder)
        one = {"object": short.objects[0].clicks[:1]}
        found["tiny at 1024, first click, 3 slices"] = ours.ask("profile", short.image, one, NO_STOP)
    return found


def measure_server(effort: Effort) -> Figures:
    """Let `benchmarks.server` measure the server."""
    file = effort.folder / "server.json"
    parts = (
        ["--only", "info"]
        if effort.quick
        else [f"--only={name}" for name in ("clicks", "info", "throughput", "memory")]
    )
    command = [sys.executable, "-m", "slicecast_lab.benchmarks.server", *parts, "--json", str(file)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return dict(json.loads(file.read_text(encoding="utf-8")))


PARTS: dict[str, Callable[[Effort], Figures]] = {
    "ct": lambda effort: measure_scan("ct", effort),
    "mr": lambda effort: measure_scan("mr", effort),
    "large": lambda effort: measure_scan("large", effort),
    "objects": measure_objects,
    "tiny": measure_tiny,
    "tiny512": measure_small,
    "profiles": measure_profiles,
    "server": measure_server,
}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, action="append", help="measure this part only; may be repeated")
    parser.add_argument("--quick", action="store_true", help="a few slices, once; writes no page unless told where")
    parser.add_argument(
        "--clip", type=int, default=CLIP_SLICES, help="slices for the large network; each takes seconds"
    )
    parser.add_argument("--build", type=Path, help="folder for the figures")
    parser.add_argument("--page", type=Path, help="default: docs/results/speed.md; with --quick: none")
    options = parser.parse_args()
    build = options.build or ROOT / "build" / "bench" / ("speed-quick" if options.quick else "speed")
    command = command_line("python -m slicecast_lab.benchmarks.speed")
    for name in options.only or PARTS:
        print(name, file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            source = provenance(bundled_spec(), command, device="cpu")
            figures = PARTS[name](Effort(Path(folder), options.quick, options.clip))
        write_json({"provenance": source, "figures": figures}, build / f"{name}.json")
    parts = {name: build / f"{name}.json" for name in PARTS if (build / f"{name}.json").is_file()}
    tables = speed_tables({name: json.loads(file.read_text(encoding="utf-8")) for name, file in parts.items()})
    print(*tables.values(), sep="\n\n")
    page = options.page or (None if options.quick else ROOT / "docs" / "results" / "speed.md")
    if page:
        write_blocks(page, tables)


if __name__ == "__main__":
    main()
