"""How long "Next sample" takes with many cases in the store, over HTTP and with the campaign alone.

    python -m slicecast_lab.benchmarks.next_sample --cases 10000 --asks 200

Prints p50, p95 and the worst of each way. The target is a p95 under 200 ms with 10,000 cases. Every image is the same
small volume under another name; a tenth of them is labelled, half of the events are those of earlier work. The orders
of strat_random and auto are made in the background while the server is asked.
"""

import argparse
import json
import os
import random
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np

from slicecast.campaign.campaign import Campaign
from slicecast.campaign.choose import Choice
from slicecast.campaign.store import EventStore, sqlite_url
from slicecast.config import project_dir
from slicecast.demo.server_process import serving
from slicecast.volume import Geometry, Volume, write_volume


def timed(ask: Callable[[int], object], asks: int) -> dict[str, float]:
    """Ask so many times; return milliseconds."""
    seconds = []
    for number in range(asks):
        start = time.perf_counter()
        ask(number)
        seconds.append(time.perf_counter() - start)
    p50, p95 = np.percentile(seconds, [50, 95])
    return {"p50_ms": round(p50 * 1e3, 1), "p95_ms": round(p95 * 1e3, 1), "worst_ms": round(max(seconds) * 1e3, 1)}


def filled(url: str, names: list[str]) -> Campaign:
    """Open a campaign in which a tenth of the cases is labelled."""
    campaign = Campaign(EventStore(url), rng=random.Random(0))
    campaign.add({name: number % 10 == 0 for number, name in enumerate(names)})
    return campaign


def alone(names: list[str], asks: int, folder: Path) -> dict[str, float]:
    """Measure the campaign without a server: lease, and hand back."""
    campaign = filled(sqlite_url(folder / "alone.db"), names)
    chance = random.Random(0)

    def ranking(candidates: object) -> list[Choice]:
        return [Choice(chance.choice(list(candidates)), "random")]  # type: ignore[call-overload]

    return timed(lambda n: campaign.next_case(f"person-{n % 50}", available=names, ranking=ranking), asks)


def over_http(names: list[str], asks: int, folder: Path, strategy: str) -> dict[str, float]:
    """Measure the whole server, as OHIF and Slicer ask it."""
    studies = folder / f"studies-{strategy}"
    studies.mkdir()
    volume = Volume(np.arange(4 * 4 * 4, dtype=np.int16).reshape(4, 4, 4), Geometry((4, 4, 4), (1, 1, 1), (0, 0, 0)))
    write_volume(studies / f"{names[0]}.nii.gz", volume)
    for name in names[1:]:
        os.link(studies / f"{names[0]}.nii.gz", studies / f"{name}.nii.gz")
    app = Path(shutil.copytree(project_dir("apps") / "sam2", folder / f"app-{strategy}"))

    def ask(number: int) -> object:
        body = json.dumps({"client_id": f"person-{number % 50}"}).encode()
        request = urllib.request.Request(
            f"{server.url}/activelearning/{strategy}", data=body, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["id"]

    with serving(studies, app=app, log=folder / f"{strategy}.log") as server:
        ask(0)
        return timed(ask, asks)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--asks", type=int, default=200)
    parser.add_argument("--strategies", default="random,confidence,strat_random,auto", help="asked over HTTP")
    options = parser.parse_args()
    names = [f"case_{number:05d}" for number in range(options.cases)]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        found = {"campaign alone": alone(names, options.asks, place)}
        for strategy in options.strategies.split(","):
            found[f"HTTP, {strategy}"] = over_http(names, options.asks, place, strategy)
    for name, numbers in found.items():
        print(name, json.dumps(numbers))


if __name__ == "__main__":
    main()
