"""Make the picture of the annotation page: `make run`, then this file, with the address if it differs."""

import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

from slicecast.volume import read_volume

HERE = Path(__file__).resolve().parent
CASE = "ct_abdomen_a"
TRUTH = HERE.parents[1] / "sample-data" / "truth" / f"{CASE}.nii.gz"
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
VALUES = {"kidney_left": 4, "kidney_right": 3, "spleen": 2}
PLACE_OF = """async (ijk) => {
  const { scan } = await import("/annotate/page/main.js");
  scan.goTo(ijk);
  const frame = document.getElementById("scan").getBoundingClientRect();
  return scan.canvasAt(ijk).map((at, place) => at + (place ? frame.top : frame.left));
}"""


def main(url: str = "http://127.0.0.1:8000") -> None:
    truth = read_volume(TRUTH).array
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 760})
        page.set_default_timeout(120_000)
        page.add_init_script("localStorage.slicecast_hint = 4")  # the hints were read
        page.goto(f"{url}/annotate/?image={CASE}")
        page.wait_for_selector("body[data-ready]")
        for name, value in VALUES.items():
            page.get_by_role("button", name=name, exact=True).click()
            with page.expect_response("**/draft"):
                page.mouse.click(*page.evaluate(PLACE_OF, middle(truth == value)))
        page.wait_for_timeout(3000)  # until 3D is drawn
        page.screenshot(path=HERE / "annotate.png")
    picture = Image.open(HERE / "annotate.png").convert("RGB")
    picture.save(HERE / "annotate.png", optimize=True)  # all its colours: a palette makes structures look alike


def middle(mask: np.ndarray) -> list[int]:
    """Return the voxel (i, j, k) of a mask [k, j, i] that is nearest to its middle."""
    places = np.argwhere(mask)
    nearest = np.linalg.norm(places - places.mean(axis=0), axis=1).argmin()
    return [int(index) for index in places[nearest][::-1]]


if __name__ == "__main__":
    main(*sys.argv[1:])
