"""Make the pictures of docs/clients/ from what the browser tests left: `make pictures` runs both.

Those of OHIF are the browser tests' own screenshots, with fewer colours; the one for Slicer is drawn from an answer.
Everything in them is generated.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from slicecast.inference.pictures import draw_result
from slicecast.inference.segment import SegmentRequest, SegmentService
from slicecast.prompts import ObjectPrompts, Point, PromptSet
from slicecast.volume import read_volume

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SCREENSHOTS = {
    "1-first-click": "ohif-run",
    "4-several-labels": "ohif-several",
    "3-next-sample": "ohif-next-sample",
}
STORE = "dicom"
"""The screenshots on a plain folder of DICOM files."""
CASE, CEREBELLUM = "mr_brain_b", 9
WIDTH_PX = {"ohif": 1100, "slicer": 640}


def main() -> None:
    for name, target in SCREENSHOTS.items():
        shrink(Image.open(ROOT / "build" / "browser" / STORE / f"{name}.png"), HERE / f"{target}.png")
    file = ROOT / "build" / "browser" / "slicer.png"
    draw_answer(file)
    shrink(Image.open(file), HERE / "slicer-answer.png")


def shrink(picture: Image.Image, target: Path) -> None:
    """Write a picture small enough for a repository."""
    width = WIDTH_PX[target.name.partition("-")[0]]
    height = round(picture.height * width / picture.width)
    small = picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    small.quantize(160, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(target, optimize=True)


def draw_answer(file: Path) -> None:
    """Draw what Slicer gets for one click inside the cerebellum."""
    image = ROOT / "sample-data" / "studies" / f"{CASE}.nii.gz"
    truth = read_volume(ROOT / "sample-data" / "truth" / f"{CASE}.nii.gz").array == CEREBELLUM
    places = np.argwhere(truth)
    k, j, i = places[np.linalg.norm(places - places.mean(axis=0), axis=1).argmin()].tolist()
    prompts = PromptSet((ObjectPrompts("cerebellum", points=(Point((i, j, k)),)),))
    result = SegmentService(model="sam2_nano").segment(SegmentRequest(image, prompts))
    draw_result(read_volume(image), result, file)


if __name__ == "__main__":
    main()
