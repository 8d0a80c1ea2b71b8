"""Make the picture of the annotation page: `make run`, then this file, with the address if it differs."""

import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

HERE = Path(__file__).resolve().parent
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
CLICKS = {"kidney_left": (667, 497), "kidney_right": (525, 497), "liver": (500, 400)}
COLOURS = 160


def main(url: str = "http://127.0.0.1:8000") -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 760})
        page.set_default_timeout(120_000)
        page.goto(f"{url}/annotate/?image=ct_abdomen_a")
        page.wait_for_selector("body[data-ready]")
        for name, place in CLICKS.items():
            page.get_by_role("button", name=name, exact=True).click()
            with page.expect_response("**/draft"):
                page.mouse.click(*place)
        page.wait_for_timeout(1000)
        page.screenshot(path=HERE / "annotate.png")
    picture = Image.open(HERE / "annotate.png").convert("RGB")
    small = picture.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    small.save(HERE / "annotate.png", optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
