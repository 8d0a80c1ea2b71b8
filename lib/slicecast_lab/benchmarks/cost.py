"""What one click costs with the bundled model: seconds and memory, each in a fresh process.

    python -m slicecast_lab.benchmarks.cost                      # prints the table
    python -m slicecast_lab.benchmarks.cost --page docs/results/cost.md --json build/bench/cost.json

Three figures with a target (issue "Annotate a volume from one slice"): one click on a generated 512x512x300 CT whose
organ spans 60 slices, one click on a 35x50x36 MR, and the start of the server.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from slicecast.config import project_dir
from slicecast.demo.server_process import serving
from slicecast.volume import Geometry, Volume, write_volume
from slicecast_lab.benchmarks.speed_scans import ORGAN_IJK, large_ct

REPEATS = 3
SMALL = (35, 50, 36)


def small_mr(seed: int = 0) -> tuple[Volume, tuple[int, int, int]]:
    """Generate a small MR [k, j, i] float32 with one bright body; and a click in it."""
    rng = np.random.default_rng(seed)
    k, j, i = np.mgrid[: SMALL[2], : SMALL[1], : SMALL[0]].astype(np.float32)
    body = ((i - 17) / 7) ** 2 + ((j - 25) / 12) ** 2 + ((k - 18) / 10) ** 2 < 1
    array = (np.where(body, 160, 90) + rng.normal(0, 10, body.shape)).astype(np.float32)
    return Volume(array, Geometry(SMALL, (1, 1, 1), (0, 0, 0), np.eye(3)), {"modality": "MR"}), (17, 25, 18)


def time_click(volume: Volume, click: tuple[int, int, int], folder: Path) -> list[dict]:
    """Segment from one click in fresh processes; return seconds and peak memory of each."""
    image = folder / "image.nii.gz"
    write_volume(image, volume)
    runs = []
    for _ in range(REPEATS):
        report = folder / "report.json"
        words = [str(image), "-o", str(folder / "out.nii.gz"), "--point", "organ=" + ",".join(map(str, click))]
        command = [sys.executable, "-m", "slicecast.cli.main", "segment", *words, "--json", str(report)]
        peak = _run(command, os.environ | {"SLICECAST_MODEL": "sam2_nano"})
        found = json.loads(report.read_text())
        walked = {"walked": found["slices_walked"], "encoded": found["slices_encoded"]}
        runs.append({**found["seconds"], **walked, "peak_gib": peak, "voxels": found["objects"]["organ"]["voxels"]})
    return runs


def _run(command: list[str], environment: dict[str, str]) -> float:
    """Run a command; return the peak resident memory of the process in GiB."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with status {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss / 2**20


def time_server(folder: Path) -> list[dict]:
    """Start the server on the sample data; return the seconds until it answered."""
    runs = []
    for n in range(REPEATS):
        with serving(
            project_dir("sample-data") / "studies", app=project_dir("apps") / "sam2", log=folder / f"{n}.log"
        ) as s:
            runs.append({"total": s.start_s})
    return runs


def median(runs: list[dict], key: str) -> float:
    """Return the median of a figure over runs."""
    return float(np.median([run[key] for run in runs]))


def table(results: dict[str, list[dict]]) -> str:
    """Return the results as a Markdown table."""
    ct, mr, server = results["ct"], results["mr"], results["server"]
    split = ", ".join(f"{name} {median(ct, name):.1f}" for name in ("read", "encode", "propagate", "post"))
    rows = [
        ("one click, CT 512x512x300, answer, s", f"{median(ct, 'total'):.1f} ({split})", "15"),
        ("the same, slices walked / encoded", f"{median(ct, 'walked'):.0f} / {median(ct, 'encoded'):.0f}", ""),
        ("the same, peak resident memory, GiB", f"{max(run['peak_gib'] for run in ct):.2f}", "4"),
        ("one click, MR 35x50x36, answer, s", f"{median(mr, 'total'):.2f}", "2"),
        ("start of the server, s", f"{median(server, 'total'):.1f}", "20"),
    ]
    lines = ["| figure | median of 3 | at most |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {value} | {limit} |" for name, value, limit in rows)])


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("build/bench/cost.json"))
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results = {
            "ct": time_click(large_ct()[0], ORGAN_IJK, folder),
            "mr": time_click(*small_mr(), folder),
            "server": time_server(folder),
        }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=2) + "\n")
    text = table(results)
    print(text)
    if options.page:
        options.page.write_text(page(text))


def page(text: str) -> str:
    """Return the results page around a table."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    today = datetime.datetime.now(datetime.UTC).date()
    machine = f"{os.cpu_count()} cores, {_memory_gib()} GiB, {platform.machine()}, no GPU; torch {torch.__version__}"
    return (
        "# What a click costs\n\nThe bundled model on the CPU, each run in a fresh process; `read` includes unpacking "
        f"and choosing the window.\n\n{text}\n\nMachine: {machine}. Date: {today}. Commit: {commit}. "
        "Command: `python -m slicecast_lab.benchmarks.cost --page docs/results/cost.md`.\n"
    )


def _memory_gib() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)


if __name__ == "__main__":
    main()
