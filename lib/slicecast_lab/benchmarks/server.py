"""How long one annotator waits for the slice clicked on, and what a crowd costs: `/info/` while propagation runs, eight
annotators against one, memory in the long run, and how long "Next sample" takes with many cases.

    python -m slicecast_lab.benchmarks.server                   # prints everything
    python -m slicecast_lab.benchmarks.server --only next --cases 10000 --asks 200
    python -m slicecast_lab.benchmarks.server --only info --json build/bench/server.json

Every part starts `slicecast serve` afresh. `clicks` uses the scans of `benchmarks.speed`; `info`, `throughput` and
`memory` generated volumes of 160 slices (60 for the throughput); all with the bundled model. Of `next` every image is
the same small volume under another name, and a tenth of them is labelled; the target is a p95 under 200 ms with 10,000
cases.
"""

import argparse
import json
import math
import os
import random
import re
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import numpy as np
import psutil
import yaml

from slicecast.campaign.campaign import Campaign, Choice
from slicecast.campaign.events import EventStore, sqlite_url
from slicecast.config import CONFIGS_VARIABLE, config_dir, project_dir
from slicecast.demo.server_process import RunningServer, serving
from slicecast.models.registry import bundled_spec
from slicecast.volume import Geometry, Volume, write_volume
from slicecast_lab.benchmarks.speed_scans import IJK, SpeedScan, write_scan
from slicecast_lab.evaluation.page import markdown
from slicecast_lab.evaluation.provenance import command_line, provenance
from slicecast_lab.evaluation.report import write_json

ROUTE = "/slicecast/sessions"
ANSWER_LIMIT_S = 120.0  # Longer than any loaded machine needs

VOLUMES, ANNOTATORS = 4, 8
WARM_UP = 0.2  # Share of the time after which the server's memory should not grow any more
STRATEGIES = ("random", "first", "strat_random", "coverage")
"""Asked for the next sample; the orders of the last two are made in the background meanwhile."""

CLICK_SCANS = ("ct", "mr", "large")
CORRECTIONS = 3
THOUGHT_S = 0.3
"""An annotator looks at a result before the next click; the server may encode ahead meanwhile."""

Figures = dict[str, Any]


def pipe(seed: int, *, slices: int, side: int = 48) -> Volume:
    """Generate a pipe of 100 through noise of 30, which winds a little; never the same for two seeds."""
    rng = np.random.default_rng(seed)
    j, i = np.indices((side, side))
    array = rng.normal(30, 4, (slices, side, side))
    for k in range(slices):
        x, y, _ = centre(seed, k, side=side)
        array[k][(i - x) ** 2 + (j - y) ** 2 < (side / 6) ** 2] += 70
    return Volume(array.round().astype(np.int16), Geometry((side, side, slices), (1.0, 1.0, 3.0)))


def centre(seed: int, k: int, *, side: int = 48) -> list[int]:
    """Return a voxel (i, j, k) in the middle of the pipe on slice k."""
    x = side / 2 + seed % 3 + 2 * np.sin((k + 9 * seed) / 9)
    y = side / 2 - seed % 2 + 2 * np.cos((k + 5 * seed) / 11)
    return [round(float(x)), round(float(y)), k]


def write_pipes(folder: Path, count: int, *, slices: int, side: int = 48) -> Path:
    """Write volumes `pipe0`, `pipe1` and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        write_volume(folder / f"pipe{seed}.nii.gz", pipe(seed, slices=slices, side=side))
    return folder


class SessionClient:
    """One annotator with one session.

    Args:
        url: the server.
        image: id of an image.
        name: of the annotator.
        session: address of a session that is open already.

    Raises (every call):
        httpx.HTTPError: the server cannot be reached, or refused.
    """

    def __init__(self, url: str, image: str, *, name: str, session: str | None = None) -> None:
        self.http = httpx.Client(base_url=url, timeout=ANSWER_LIMIT_S)
        self.address = session or self._open(image, name)

    def _open(self, image: str, name: str) -> str:
        return str(_good(self.http.post(ROUTE, json={"image": image, "client_id": name})).headers["location"])

    def click(self, ijk: list[int], *, object: str = "pipe", positive: bool = True) -> dict[str, Any]:
        """Add a click and return the session's state."""
        prompt = {"kind": "point", "object": object, "ijk": ijk, "positive": positive}
        return _json(self.http.post(f"{self.address}/prompts", json={"prompts": [prompt]}))

    def state(self) -> dict[str, Any]:
        """Return the session's state."""
        return _json(self.http.get(self.address))

    def lines(self) -> Iterator[dict[str, Any]]:
        """Propagate, and yield each line as it comes."""
        with self.http.stream("POST", f"{self.address}/propagate") as answer:
            if answer.is_error:
                answer.read()
            yield from map(json.loads, _good(answer).iter_lines())

    def propagate(self) -> dict[str, Any]:
        """Propagate to the end and return the last line."""
        *_, last = self.lines()
        return last

    def result(self) -> bytes:
        """Return the mask's file, NRRD."""
        return _good(self.http.get(f"{self.address}/result", params={"format": "nrrd"})).content

    def close(self) -> None:
        """Close the session and the connection."""
        self.http.delete(self.address)
        self.http.close()


def _good(answer: httpx.Response) -> httpx.Response:
    return answer.raise_for_status()


def _json(answer: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = _good(answer).json()
    return found


def own_app(folder: Path) -> Path:
    """Copy the app, so that nothing is left in it."""
    (folder / "app").mkdir()
    return Path(shutil.copy(project_dir("apps") / "sam2" / "main.py", folder / "app")).parent


@contextmanager
def fresh_server(slices: int) -> Iterator[RunningServer]:
    """Run a server on new volumes and an app folder of its own, once it is ready to work."""
    with tempfile.TemporaryDirectory() as name:
        studies = write_pipes(Path(name) / "studies", VOLUMES, slices=slices)
        with serving(studies, app=own_app(Path(name)), log=Path(name) / "log") as running:
            wait_for_workers(running.url)
            yield running


def wait_for_workers(url: str) -> None:
    """Return once all worker processes of a server are ready; at once where it has none."""
    while re.search(r"^slicecast_worker_ready.* 0", httpx.get(f"{url}/metrics").text, re.MULTILINE):
        time.sleep(0.2)


@contextmanager
def engine_set(**settings: object) -> Iterator[None]:
    """Let servers that are started in the block have other settings in `engine.yaml`."""
    with tempfile.TemporaryDirectory() as name, patch.dict(os.environ):
        configs = Path(shutil.copytree(config_dir(), Path(name) / "configs"))
        file = configs / "engine.yaml"
        file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text(encoding="utf-8")) | settings), encoding="utf-8")
        os.environ[CONFIGS_VARIABLE] = str(configs)
        yield


def answer_times(url: str, until: Callable[[], bool]) -> list[float]:
    """Ask for /info/ twenty times a second, as long as wanted; return the milliseconds of each answer."""
    times = []
    with httpx.Client(base_url=url, timeout=60) as client:
        client.get("/info/")
        while not until():
            start = time.perf_counter()
            client.get("/info/").raise_for_status()
            times.append(1000 * (time.perf_counter() - start))
            time.sleep(max(0.0, 0.05 - times[-1] / 1000))
    return times


def info_figures() -> Figures:
    """Measure /info/ on an idle server, and while one annotator's propagations run."""
    with fresh_server(slices=160) as running:
        end = time.monotonic() + 3
        idle = answer_times(running.url, lambda: time.monotonic() > end)
        done = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            busy = pool.submit(answer_times, running.url, done.is_set)
            slices = 0
            for seed in range(VOLUMES):
                session = SessionClient(running.url, f"pipe{seed}", name="anna")
                session.click(centre(seed, 80))
                slices += session.propagate()["recomputed"]
                session.close()
            done.set()
            times = busy.result()
    return {
        **{f"idle_{key}": value for key, value in percentiles(idle).items()},
        **{f"busy_{key}": value for key, value in percentiles(times).items()},
        "asked": len(times),
        "slices_meanwhile": slices,
    }


def annotate(url: str, number: int) -> tuple[bytes, int]:
    """Click, propagate, correct, propagate; return the mask and the slices computed."""
    seed = number % VOLUMES
    session = SessionClient(url, f"pipe{seed}", name=f"user {number}")
    slices = 0
    for k in (8 + 4 * number, 52 - 3 * number):
        session.click(centre(seed, k))
        slices += session.propagate()["recomputed"]
    mask = session.result()
    session.close()
    return mask, slices


def click_figures() -> Figures:
    """Measure from sending a click until its slice's mask is there: first clicks and corrections of many sessions."""
    times: dict[str, list[float]] = {"first": [], "correction": []}
    with tempfile.TemporaryDirectory() as name:
        studies = Path(name) / "studies"
        studies.mkdir()
        scans = [write_scan(key, studies) for key in CLICK_SCANS]
        with serving(studies, app=own_app(Path(name)), log=Path(name) / "log") as running:
            for scan in scans:
                for clicks in _click_orders(scan):
                    session = SessionClient(running.url, scan.key, name="anna")
                    for kind, ijk in zip(("first", *["correction"] * CORRECTIONS), clicks, strict=False):
                        times[kind].append(answer_ms(session, ijk))
                        time.sleep(THOUGHT_S)
                    session.close()
    return {kind: {**percentiles(found), "clicks": len(found)} for kind, found in times.items()}


def _click_orders(scan: SpeedScan) -> Iterator[list[IJK]]:
    """Yield each object's clicks, beginning with each of them in turn."""
    for target in scan.objects[:3]:
        places = list(dict.fromkeys(target.clicks))
        for start in range(len(places)):
            yield places[start:] + places[:start]


def answer_ms(session: SessionClient, ijk: IJK) -> float:
    """Click, and return the milliseconds until that slice's mask is there; the propagation then runs to its end."""
    start, found = time.perf_counter(), math.nan
    session.click(list(ijk))
    for line in session.lines():
        if line["type"] == "slice" and line["slice"] == ijk[2] and math.isnan(found):
            found = 1000 * (time.perf_counter() - start)
    return found


def crowd(people: int) -> tuple[list[bytes], float, int]:
    """Do the work of eight annotators with so many at a time; return masks, seconds and slices."""
    with fresh_server(slices=60) as running, ThreadPoolExecutor(people) as pool:
        SessionClient(running.url, "pipe0", name="first").close()
        annotate(running.url, 0)  # loads the weights, which is not to be timed
        start = time.perf_counter()
        results = list(pool.map(lambda n: annotate(running.url, n), range(1, ANNOTATORS + 1)))
        seconds = time.perf_counter() - start
    return [mask for mask, _ in results], seconds, sum(slices for _, slices in results)


def throughput_figures() -> Figures:
    """Compare eight annotators at once with the same work one after the other."""
    (alone, alone_s, slices), (together, together_s, slices_together) = crowd(1), crowd(ANNOTATORS)
    return {
        "one_slices_per_s": slices / alone_s,
        "eight_slices_per_s": slices_together / together_s,
        "ratio": (slices_together / together_s) / (slices / alone_s),
        "masks_equal": alone == together,
    }


def memory_figures(seconds: float) -> Figures:
    """Let two annotators work at leisure; compare the server's memory after a fifth of the time with the end's."""
    with fresh_server(slices=60) as running, ThreadPoolExecutor(2) as pool:
        process, samples = psutil.Process(running.pid), [(0.0, 0.0)]
        start = time.monotonic()
        work = [pool.submit(annotate_at_leisure, running.url, number, start + seconds) for number in range(2)]
        while not all(entry.done() for entry in work):
            samples.append((time.monotonic() - start, process.memory_info().rss / 2**20))
            time.sleep(1)
        rounds = sum(entry.result() for entry in work)
    warm = statistics.median(mib for at_s, mib in samples if WARM_UP * seconds <= at_s < WARM_UP * seconds + 20)
    end = statistics.median(mib for _, mib in samples[-20:])
    return {
        "seconds": seconds,
        "rounds": rounds,
        "after_warm_up_mib": warm,
        "at_the_end_mib": end,
        "largest_mib": max(mib for _, mib in samples),
        "growth_percent": 100 * (end / warm - 1),
        "each_minute_mib": [round(mib) for _, mib in samples[60::60]],
    }


def annotate_at_leisure(url: str, number: int, until: float) -> int:
    """Click, propagate, ask for the next sample, save a label, close; return how often until the time was over."""
    rounds = 0
    while time.monotonic() < until:
        seed = (number + 2 * rounds) % VOLUMES
        session = SessionClient(url, f"pipe{seed}", name=f"user {number}")
        session.click(centre(seed, 20 + rounds % 20))
        session.propagate()
        mask = session.result()
        info = json.dumps({"label_info": [{"name": "pipe", "idx": 1}]})
        files: Any = {"label": ("mask.nrrd", mask), "params": (None, info)}
        client_id = {"client_id": f"user {number}"}
        _good(
            session.http.put("/datastore/label", params={"image": f"pipe{seed}", "tag": f"own-{number}"}, files=files)
        )
        _good(session.http.post("/activelearning/random", json=client_id))
        session.close()
        rounds += 1
        time.sleep(1)
    return rounds


def percentiles(times_ms: Sequence[float]) -> Figures:
    """Return p50, p95 and the longest of times in milliseconds."""
    p50, p95 = np.percentile(times_ms, [50, 95])
    return {"p50_ms": round(float(p50), 1), "p95_ms": round(float(p95), 1), "max_ms": round(max(times_ms), 1)}


def timed(ask: Callable[[int], object], asks: int) -> Figures:
    """Ask so many times."""
    times = []
    for number in range(asks):
        start = time.perf_counter()
        ask(number)
        times.append(1000 * (time.perf_counter() - start))
    return percentiles(times)


def filled(url: str, names: list[str]) -> Campaign:
    """Open a campaign in which a tenth of the cases is labelled."""
    campaign = Campaign(EventStore(url), rng=random.Random(0))
    campaign.add({name: number % 10 == 0 for number, name in enumerate(names)})
    return campaign


def next_alone(names: list[str], asks: int, folder: Path) -> Figures:
    """Measure the campaign without a server: lease, and hand back."""
    campaign = filled(sqlite_url(folder / "alone.db"), names)
    chance = random.Random(0)

    def ranking(candidates: Sequence[str]) -> list[Choice]:
        return [Choice(chance.choice(list(candidates)), "random")]

    return timed(lambda n: campaign.next_case(f"person-{n % 50}", available=names, ranking=ranking), asks)


def next_over_http(names: list[str], asks: int, folder: Path, strategy: str) -> Figures:
    """Measure the whole server, as OHIF and Slicer ask it."""
    studies = folder / strategy / "studies"
    studies.mkdir(parents=True)
    volume = Volume(np.arange(4 * 4 * 4, dtype=np.int16).reshape(4, 4, 4), Geometry((4, 4, 4), (1, 1, 1), (0, 0, 0)))
    write_volume(studies / f"{names[0]}.nii.gz", volume)
    for name in names[1:]:
        os.link(studies / f"{names[0]}.nii.gz", studies / f"{name}.nii.gz")
    with httpx.Client(timeout=60) as client:

        def ask(number: int) -> object:
            body = {"client_id": f"person-{number % 50}"}
            answer = client.post(f"{server.url}/activelearning/{strategy}", json=body)
            return answer.raise_for_status().json()["id"]

        with serving(studies, app=own_app(studies.parent), log=folder / f"{strategy}.log") as server:
            ask(0)
            return timed(ask, asks)


def next_figures(cases: int, asks: int, strategies: Sequence[str] = STRATEGIES) -> Figures:
    """Measure the next sample: the campaign alone, and each strategy as OHIF and Slicer ask for it."""
    names = [f"case_{number:05d}" for number in range(cases)]
    with tempfile.TemporaryDirectory() as folder:
        found = {"campaign alone": next_alone(names, asks, Path(folder))}
        return found | {f"HTTP, {name}": next_over_http(names, asks, Path(folder), name) for name in strategies}


def table(figures: Figures) -> str:
    """Return what was measured beside its targets."""
    rows: list[tuple[str, str, str]] = []
    for kind, least in (("first", "100 ms"), ("correction", "60 ms")):
        if times := figures.get("clicks", {}).get(kind):
            value = f"{times['p95_ms']} ms (median {times['p50_ms']}, {times['clicks']} clicks)"
            rows.append((f"{kind} click to its slice's mask, p95", value, least))
    if info := figures.get("info"):
        rows.append(("`/info/` p95 while a propagation runs", f"{info['busy_p95_ms']:.0f} ms", "under 100 ms"))
        rows.append(("`/info/` p95 on an idle server", f"{info['idle_p95_ms']:.0f} ms", ""))
    if load := figures.get("throughput"):
        same = "yes" if load["masks_equal"] else "NO"
        rows.append(("slices per second, 8 annotators against 1", f"{load['ratio']:.2f}", "at least 1.7"))
        rows.append(("masks of 8 at once equal those of 1 after another", same, "yes"))
    if memory := figures.get("memory"):
        minutes = f"memory after {memory['seconds'] / 60:.0f} minutes, against a fifth of that"
        rows.append((minutes, f"{memory['growth_percent']:+.1f} %", "within 5 %"))
    for name, times in figures.get("next", {}).items():
        value = f"{times['p95_ms']} ms (median {times['p50_ms']}, longest {times['max_ms']})"
        rows.append((f"next sample, p95, {name}", value, "under 200 ms"))
    return markdown({"figure": name, "measured": value, "target": target} for name, value, target in rows)


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--cases", type=int, default=10_000, help="next: in the store")
    parser.add_argument("--asks", type=int, default=200, help="next: of each strategy")
    parser.add_argument("--seconds", type=float, default=900, help="memory: how long people work")
    parts: dict[str, Callable[[argparse.Namespace], Figures]] = {
        "clicks": lambda _: click_figures(),
        "info": lambda _: info_figures(),
        "throughput": lambda _: throughput_figures(),
        "memory": lambda given: memory_figures(given.seconds),
        "next": lambda given: next_figures(given.cases, given.asks),
    }
    parser.add_argument("--only", choices=parts, action="append", help="measure this part only; may be repeated")
    parser.add_argument("--workers", type=int, help="processes that answer requests. Default: as configs/engine.yaml")
    given = parser.parse_args()
    source = provenance(bundled_spec(), command_line("python -m slicecast_lab.benchmarks.server"), device="cpu")
    with engine_set(**{} if given.workers is None else {"workers": given.workers}):
        figures = {name: parts[name](given) for name in given.only or parts}
    print(table(figures))
    if given.json:
        write_json({"provenance": source, **figures}, given.json)


if __name__ == "__main__":
    main()
