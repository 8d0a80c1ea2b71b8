"""Measure the annotation page on a scan of 512 x 512 x 300 voxels: `python tests/browser/large_scan.py [FOLDER]`.

What it prints stands in docs/clients/annotate.md. A tab's memory is that of its process and of Chromium's for drawing.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from clinic import CHROMIUM_FLAGS, SAMPLES, find_chromium
from labelserver import copy_app
from playwright.sync_api import sync_playwright
from scipy import ndimage

from slicecast.demo.server_process import serving
from slicecast.volume import Geometry, Volume, read_volume, write_volume

SIZE_KJI = (300, 512, 512)
CASE, MIB, PATIENCE_MS = "large", 2**20, 600_000
FRAME = """async (work) => {
  const { scan } = await import("/annotate/page/main.js"), took = [];
  for (let round = 0; round < 6; round++) {
    const began = performance.now();
    WORK[work](scan, round);
    scan.viewer.gl.finish();
    scan.viewer.gl.readPixels(0, 0, 1, 1, scan.viewer.gl.RGBA, scan.viewer.gl.UNSIGNED_BYTE, new Uint8Array(4));
    took.push(performance.now() - began);
    await new Promise(requestAnimationFrame);
  }
  return took.sort((a, b) => a - b);
}"""
WORK = """{
  slice: (scan, round) => scan.goToSlice(100 + round),
  cursor: (scan, round) => scan.goTo([200 + 5 * round, 250, 150]),
  mask: (scan, round) => {
    scan.put(1, 150 + round, scan.slice(1, 150));
    clearTimeout(scan.waiting);
    scan.waiting = null;
    scan.draw();
  },
}"""


def main(folder: Path) -> None:
    studies = folder / "studies"
    studies.mkdir(exist_ok=True)
    write_volume(studies / f"{CASE}.nii.gz", large())
    app, options = copy_app(folder / "app"), ["--labels", "liver"]
    with (
        serving(studies, app=app, log=folder / "server.log", options=options) as server,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        page.set_default_timeout(PATIENCE_MS)
        began = time.monotonic()
        page.goto(f"{server.url}/annotate/?image={CASE}")
        page.wait_for_selector("body[data-ready]")
        said = {"opened_s": round(time.monotonic() - began, 1), "opened_mib": memory()}
        print(said, flush=True)
        page.click("#structures >> text=liver")
        for work in ("slice", "cursor", "mask", "one view", "slice, one view", "mask, one view"):
            if work == "one view":
                page.click("#single")
                continue
            took = page.evaluate(FRAME.replace("WORK", f"({WORK})"), work.partition(",")[0])
            said[f"{work}, ms"] = {"median": round(took[3]), "most": round(took[-1])}
            print(said, flush=True)
        said["mib"] = memory()
        page.screenshot(path=folder / "large.png")
        browser.close()
    print(json.dumps(said, indent=1))


def large() -> Volume:
    """Return a sample scan, resampled."""
    sample = read_volume(SAMPLES / "studies" / "ct_abdomen_a.nii.gz")
    factors = [wanted / now for wanted, now in zip(SIZE_KJI, sample.array.shape, strict=True)]
    array = ndimage.zoom(sample.array.astype(np.float32), factors, order=1).round().astype(np.int16)
    noisy = array + np.random.default_rng(0).normal(0, 12, array.shape).astype(np.int16)
    spacing = tuple(mm / factor for mm, factor in zip(sample.geometry.spacing_mm, factors[::-1], strict=True))
    geometry = Geometry(noisy.shape[::-1], spacing, sample.geometry.origin_mm, sample.geometry.direction)
    return Volume(noisy, geometry)


def memory() -> dict[str, int]:
    """Return the MiB of the browser's processes for pages and for drawing."""
    kinds = {"--type=renderer": "tab", "--type=gpu-process": "drawing"}
    found = dict.fromkeys(kinds.values(), 0)
    for process in psutil.Process().children(recursive=True):
        for flag, name in kinds.items():
            if flag in process.cmdline():
                found[name] = max(found[name], process.memory_info().rss // MIB)
    return found


if __name__ == "__main__":
    if sys.argv[1:]:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder))
