"""How long a click takes: the product, MONAI Label's own SAM 2 task, and SAM 2's video predictor driven directly.

    python -m slicecast_lab.benchmarks.speed  # everything (make bench); prints the tables, writes the page
    python -m slicecast_lab.benchmarks.speed --quick  # a few slices, once: does it work at all?
    python -m slicecast_lab.benchmarks.speed --only tiny --only server

Each contestant works in a process of its own, with the same weights, file, clicks and number of threads; they take
turns, and ratios are of the same turn. The seconds run from the scan's file to the mask's, with the network loaded.
Figures are kept part by part in build/bench/interaction/; the page is written from what is there. Its section "Causes"
is written by hand and is kept.
"""

import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from slicecast.config import CONFIGS_VARIABLE, config_dir, project_dir
from slicecast.models.registry import bundled_spec
from slicecast.models.sam2_build import build_sam2
from slicecast.models.weights import file_sha256
from slicecast_lab.benchmarks.contest import WHOLE, Answer, Contestant, in_its_own_process
from slicecast_lab.benchmarks.speed_page import CAUSES, speed_page
from slicecast_lab.benchmarks.speed_scans import CLIP_SLICES, Scene, few_slices, write_scene
from slicecast_lab.evaluation.monailabel import MonaiLabelProcess
from slicecast_lab.evaluation.provenance import provenance

ROOT = project_dir("docs").parent
COMMAND = "python -m slicecast_lab.benchmarks.speed"
REPEATS = {"ct": 3, "mr": 3, "large": 2, "clip": 1}
NANO_THREADS, TINY_THREADS = 1, 2
TINY, TINY_YAML = "random_tiny", "configs/sam2.1/sam2.1_hiera_t.yaml"
NO_STOP = {"gone_slices": 0, "like_share": 0.0}
QUICK_SLICES = {"ct": 10, "mr": 10, "large": 8, "clip": 3}
MIDDLE, CORRECTION, BEFORE_LATE, LATE, BEGINNING, FIRST_SLICE = 0, 1, 5, 6, 3, 6
"""Places in Target.clicks."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to measure: where files go, and whether only to try."""

    folder: Path
    quick: bool
    clip_slices: int = CLIP_SLICES

    def scene(self, key: str) -> Scene:
        scene = in_its_own_process(write_scene, key, self.folder)
        wanted = QUICK_SLICES[key] if self.quick else self.clip_slices if key == "clip" else scene.slices
        return few_slices(scene, wanted, self.folder) if wanted < scene.slices else scene

    def repeats(self, key: str) -> int:
        return 1 if self.quick else REPEATS[key]


class Turn:
    """One turn of all contestants on one scan: nobody has seen this file before."""

    def __init__(self, contestants: dict[str, Any], scene: Scene, number: int) -> None:
        self._contestants, self._number = contestants, number
        self.image = Path(shutil.copy(scene.image, scene.image.with_name(f"{scene.key}-{number}.nii.gz")))
        self._scan = self.image
        self.answers: dict[str, dict[str, Any]] = {}

    def ours(self, figure: str, clicks: Sequence, *, fresh: bool = False, options: dict | None = None) -> None:
        if fresh:
            self._contestants["ours"].ask("fresh")
        answer = self._contestants["ours"].ask("segment", self.image, {"object": clicks}, options)
        self._keep("ours", figure, answer)

    def direct(self, figure: str, clicks: Sequence) -> None:
        self._keep("direct", figure, self._contestants["direct"].ask("segment", self.image, {"object": clicks}))

    def theirs(self, figure: str, clicks: Sequence, *, fresh: bool = False) -> None:
        """Ask MONAI Label's task; a later prompt goes to the state that it keeps, which is its fastest way."""
        if fresh:  # under a name that it has not seen
            self._scan = Path(shutil.copy(self.image, self.image.with_name(f"{figure}-{self.image.name}")))
        found = self._contestants["theirs"].segment(self._scan, foreground=clicks, reset=fresh)
        walked = int(found.mask.shape[0] - min(k for _, _, k in clicks))
        self._keep("theirs", figure, Answer(found.seconds, found.peak_rss_mib, int(found.mask.sum()), walked))

    def _keep(self, who: str, figure: str, answer: Answer) -> None:
        self.answers.setdefault(figure, {})[who] = asdict(answer)
        print(f"  {figure:12} {who:7} {answer.seconds:7.2f} s  {answer.walked} slices", file=sys.stderr, flush=True)


def contest(scene: Scene, model: str, threads: int, repeats: int, play: Callable[[Turn, Scene], None]) -> dict:
    """Let all contestants play on a scan, in turns, after a warm-up on another one of theirs."""
    with ExitStack() as stack:
        contestants = {
            "ours": stack.enter_context(Contestant("ours", model, threads=threads)),
            "direct": stack.enter_context(Contestant("direct", model, threads=threads)),
            "theirs": stack.enter_context(MonaiLabelProcess(model, threads=threads)),
        }
        _warm_up(contestants, few_slices(scene, 2, scene.image.parent))
        turns = []
        for number in range(repeats):
            turn = Turn(contestants, scene, number)
            play(turn, scene)
            turns.append(turn.answers)
    return {"title": scene.title, "slices": scene.slices, "span": scene.objects[0].slices, "turns": turns}


def _warm_up(contestants: dict[str, Any], scene: Scene) -> None:
    clicks = scene.objects[0].clicks[:1]
    for name in ("ours", "direct"):
        contestants[name].ask("segment", scene.image, {"object": clicks})
    contestants["theirs"].segment(scene.image, foreground=clicks)


def play_bundled(turn: Turn, scene: Scene) -> None:
    """First click, correction, late correction; the whole volume; the same from a click near the object's beginning."""
    clicks = scene.objects[0].clicks
    turn.ours("first", clicks[:1], fresh=True)
    turn.theirs("first", clicks[:1], fresh=True)
    turn.ours("correction", clicks[:2])
    turn.theirs("correction", clicks[:2])
    if scene.key != "large":
        turn.ours("before late", clicks[:BEFORE_LATE])
        turn.ours("late", clicks[:LATE])
        turn.theirs("late", clicks[:LATE])
    turn.ours("beginning", [clicks[BEGINNING]], fresh=True)
    turn.theirs("beginning", [clicks[BEGINNING]], fresh=True)
    turn.ours("whole", clicks[:1], fresh=True, options=WHOLE)
    turn.direct("whole", clicks[:1])


def play_tiny(turn: Turn, scene: Scene) -> None:
    """The same work for all: a click on the first slice, nobody stops; then a correction."""
    first, corrected = scene.objects[0].clicks[FIRST_SLICE], scene.objects[0].clicks[CORRECTION]
    turn.ours("whole", [first], fresh=True, options=NO_STOP)
    turn.direct("whole", [first])
    turn.theirs("whole", [first], fresh=True)
    turn.ours("correction", [first, corrected], options=NO_STOP)
    turn.theirs("correction", [first, corrected])


def measure_scene(key: str, plan: Plan) -> dict:
    """Measure a scan with the bundled model."""
    return contest(plan.scene(key), bundled_spec().name, NANO_THREADS, plan.repeats(key), play_bundled)


def measure_tiny(plan: Plan) -> dict:
    """Measure the SAM 2.1 tiny architecture at 1024 pixels, with random weights."""
    os.environ[CONFIGS_VARIABLE] = str(in_its_own_process(write_random_tiny, plan.folder))
    try:
        return contest(plan.scene("clip"), TINY, TINY_THREADS, plan.repeats("clip"), play_tiny)
    finally:
        del os.environ[CONFIGS_VARIABLE]


def write_random_tiny(folder: Path) -> Path:
    """Write seeded random weights, and settings that know them; return the settings' folder."""
    torch.manual_seed(0)
    weights = folder / "random.pt"
    torch.save({"model": build_sam2(TINY_YAML).state_dict()}, weights)
    configs = Path(shutil.copytree(config_dir(), folder / "configs"))
    registry = yaml.safe_load((configs / "models.yaml").read_text(encoding="utf-8"))
    registry["models"][TINY] = {
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
    (configs / "models.yaml").write_text(yaml.safe_dump(registry), encoding="utf-8")
    return configs


def measure_objects(plan: Plan) -> dict:
    """Compare three objects at once with each alone: as it comes, and with whole slices, encoded once for all."""
    scene = in_its_own_process(write_scene, "ct", plan.folder)
    clicks = {f"object {n}": target.clicks[:1] for n, target in enumerate(scene.objects[:3])}
    turns = []
    with Contestant("ours", bundled_spec().name, threads=NANO_THREADS) as ours:
        for _ in range(1 if plan.quick else 3):
            turn = {}
            for name, options in (("zoom", {}), ("no zoom", {"zoom": "off"})):
                turn[name] = {"three": _alone(ours, scene, clicks, options)}
                turn[name]["each"] = [_alone(ours, scene, {key: clicks[key]}, options) for key in clicks]
            turns.append(turn)
    return {"title": scene.title, "objects": len(clicks), "turns": turns}


def _alone(ours: Contestant, scene: Scene, clicks: dict, options: dict) -> dict:
    ours.ask("fresh")
    return asdict(ours.ask("segment", scene.image, clicks, options))


def measure_profiles(plan: Plan) -> dict:
    """Profile the product: PyTorch's operations by their own time."""
    found = {}
    scene = plan.scene("ct")
    clicks = scene.objects[0].clicks
    with Contestant("ours", bundled_spec().name, threads=NANO_THREADS) as ours:
        one = {"object": clicks[:1]}
        ours.ask("segment", scene.image, one)
        ours.ask("fresh")
        found["bundled model, first click, 3 mm CT"] = ours.ask("profile", scene.image, one)
        found["bundled model, correction"] = ours.ask("profile", scene.image, {"object": clicks[:2]})
    os.environ[CONFIGS_VARIABLE] = str(in_its_own_process(write_random_tiny, plan.folder))
    try:
        short = few_slices(plan.scene("clip"), 3, plan.folder)
        with Contestant("ours", TINY, threads=TINY_THREADS) as ours:
            clicks = {"object": short.objects[0].clicks[:1]}
            found["tiny at 1024, first click, 3 slices"] = ours.ask("profile", short.image, clicks, NO_STOP)
    finally:
        del os.environ[CONFIGS_VARIABLE]
    return found


def measure_server(plan: Plan) -> dict:
    """Let `server_load` measure the server."""
    file = plan.folder / "server_load.json"
    words = [*(["--only", "info"] if plan.quick else []), "--json", str(file)]
    command = [sys.executable, "-m", "slicecast_lab.benchmarks.server", *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return json.loads(file.read_text(encoding="utf-8"))


PARTS: dict[str, Callable[[Plan], dict]] = {
    "ct": lambda plan: measure_scene("ct", plan),
    "mr": lambda plan: measure_scene("mr", plan),
    "large": lambda plan: measure_scene("large", plan),
    "objects": measure_objects,
    "tiny": measure_tiny,
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
    build = options.build or ROOT / "build" / "bench" / ("interaction-quick" if options.quick else "interaction")
    build.mkdir(parents=True, exist_ok=True)
    for name in options.only or PARTS:
        print(name, file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            said = provenance(bundled_spec(), COMMAND, device="cpu", now=_now())
            figures = PARTS[name](Plan(Path(folder), options.quick, options.clip))
        document = {"provenance": said, "figures": figures}
        (build / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    page = options.page or (None if options.quick else ROOT / "docs" / "results" / "speed.md")
    text = speed_page({name: _read(build / f"{name}.json") for name in PARTS if (build / f"{name}.json").is_file()})
    print(text)
    if page:
        page.write_text(text + _causes(page), encoding="utf-8")


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _read(file: Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8"))


def _causes(page: Path) -> str:
    """Return the section that is written by hand."""
    before = page.read_text(encoding="utf-8") if page.is_file() else ""
    return "\n" + before[before.index(CAUSES) :] if CAUSES in before else ""


if __name__ == "__main__":
    main()
