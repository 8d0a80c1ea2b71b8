"""What a crowd costs: `/info/` while a propagation runs, eight annotators against one, and memory after many sessions.

    python -m slicecast_lab.benchmarks.server                   # prints the table
    python -m slicecast_lab.benchmarks.server --json build/bench/server_load.json

Every part starts `slicecast serve` afresh, with the bundled model, on generated volumes of 160 slices (60 for the
throughput). Targets are those of the issue "Interactive speed".
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from slicecast.config import project_dir
from slicecast.demo.server_process import RunningServer, serving
from slicecast_lab.benchmarks.crowd import SessionClient, centre, write_pipes

VOLUMES, ANNOTATORS, SESSIONS, WARM_UP = 4, 8, 200, 40


@contextmanager
def server(slices: int) -> Iterator[RunningServer]:
    """Run a server on new volumes and an app folder of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        app = folder / "app"
        app.mkdir()
        (app / "main.py").write_bytes((project_dir("apps") / "sam2" / "main.py").read_bytes())
        studies = write_pipes(folder / "studies", VOLUMES, slices=slices)
        with serving(studies, app=app, log=folder / "log") as running:
            yield running


def percentile(values: list[float], share: float) -> float:
    """Return the value below which that share of the values lies."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def answer_times(url: str, until) -> list[float]:
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


def info_figures() -> dict[str, float]:
    """Measure /info/ on an idle server, and while one annotator's propagations run."""
    with server(slices=160) as running:
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
        "idle_p50_ms": percentile(idle, 0.5),
        "idle_p95_ms": percentile(idle, 0.95),
        "busy_p50_ms": percentile(times, 0.5),
        "busy_p95_ms": percentile(times, 0.95),
        "busy_max_ms": max(times),
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


def crowd(people: int) -> tuple[list[bytes], float, int]:
    """Do the work of eight annotators with so many at a time; return masks, seconds and slices."""
    with server(slices=60) as running, ThreadPoolExecutor(people) as pool:
        SessionClient(running.url, "pipe0", name="first").close()
        annotate(running.url, 0)  # weights are loaded, which is no annotator's fault
        start = time.perf_counter()
        results = list(pool.map(lambda n: annotate(running.url, n), range(1, ANNOTATORS + 1)))
        seconds = time.perf_counter() - start
    return [mask for mask, _ in results], seconds, sum(slices for _, slices in results)


def throughput_figures() -> dict[str, float]:
    """Compare eight annotators at once with the same work one after the other."""
    (alone, alone_s, slices), (together, together_s, slices_together) = crowd(1), crowd(ANNOTATORS)
    return {
        "one_slices_per_s": slices / alone_s,
        "eight_slices_per_s": slices_together / together_s,
        "ratio": (slices_together / together_s) / (slices / alone_s),
        "masks_equal": alone == together,
    }


def memory_figures() -> dict[str, float]:
    """Open, use and close sessions; compare the server's memory after a warm-up with that after all of them."""
    with server(slices=60) as running:
        process, mib = psutil.Process(running.pid), []
        for number in range(WARM_UP + SESSIONS):
            session = SessionClient(running.url, f"pipe{number % VOLUMES}", name="anna")
            session.click(centre(number % VOLUMES, 20 + number % 20))
            session.propagate()
            session.close()
            mib.append(process.memory_info().rss / 2**20)
    return {
        "after_warm_up_mib": mib[WARM_UP - 1],
        "after_all_mib": mib[-1],
        "largest_mib": max(mib[WARM_UP:]),
        "median_of_last_20_mib": statistics.median(mib[-20:]),
        "growth_percent": 100 * (mib[-1] / mib[WARM_UP - 1] - 1),
        "sessions": SESSIONS,
    }


def table(figures: dict[str, dict[str, float]]) -> str:
    """Return the figures beside their targets."""
    info, load, memory = figures["info"], figures["throughput"], figures["memory"]
    rows = [
        ("`/info/` p95 while a propagation runs", f"{info['busy_p95_ms']:.0f} ms", "under 100 ms"),
        ("`/info/` p95 on an idle server", f"{info['idle_p95_ms']:.0f} ms", ""),
        ("slices per second, 8 annotators against 1", f"{load['ratio']:.2f}", "at least 1"),
        ("masks of 8 at once equal those of 1 after another", "yes" if load["masks_equal"] else "NO", "yes"),
        (f"memory after {SESSIONS} sessions", f"{memory['growth_percent']:+.1f} %", "within 5 %"),
    ]
    lines = [f"| {what} | {value} | {target} |" for what, value, target in rows]
    return "\n".join(["| figure | measured | target |", "|---|---|---|", *lines])


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for all figures")
    parts = {"info": info_figures, "throughput": throughput_figures, "memory": memory_figures}
    parser.add_argument("--only", choices=parts, help="measure this part only")
    arguments = parser.parse_args()
    figures = {name: measure() for name, measure in parts.items() if arguments.only in (None, name)}
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    document = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine,
        **figures,
    }
    print(json.dumps(document, indent=1) if arguments.only else table(figures))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
