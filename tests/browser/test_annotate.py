"""The annotation page in a real browser, by mouse and keyboard, on sample scans: nothing is replaced."""

import shutil
from collections.abc import Iterator

import numpy as np
import pytest
from clinic import LABELS, PICTURES, SAMPLES, TRUTH_VALUES, Place, dice, inside, labelling
from labelserver import ROOT

from slicecast.volume import read_volume

pytestmark = pytest.mark.browser

PAGE = ROOT / "lib" / "slicecast" / "server" / "annotate"
CASES = ("ct_abdomen_a", "ct_abdomen_b")
CASE = CASES[0]
WIDTH, HEIGHT = 1280, 720

PLACE_OF = """async (ijk) => {
  const { scan } = await import("/annotate/page/main.js");
  scan.goTo(ijk);
  const frame = document.getElementById("scan").getBoundingClientRect();
  return scan.canvasAt(ijk).map((at, place) => at + (place ? frame.top : frame.left));
}"""


@pytest.fixture(autouse=True)
def _viewer() -> None:
    if not (PAGE / "node_modules" / "@niivue").is_dir():
        pytest.skip("the viewer NiiVue is not installed; `make install` does it")


@pytest.fixture
def place(tmp_path) -> Iterator[Place]:
    """A running server on two sample scans."""
    studies = tmp_path / "studies"
    studies.mkdir()
    for name in CASES:
        shutil.copy(SAMPLES / "studies" / f"{name}.nii.gz", studies)
    with labelling(studies, tmp_path) as place:
        yield place


class Annotator:
    """A person at the page: looks at the screen, uses mouse and keyboard."""

    def __init__(self, page, url: str) -> None:
        self.page, self.url = page, url
        page.set_viewport_size({"width": WIDTH, "height": HEIGHT})

    def open(self, case: str = CASE) -> None:
        self.page.goto(f"{self.url}/annotate/?image={case}")
        self.page.wait_for_selector("body[data-ready]")

    def place(self, ijk) -> tuple[float, float]:
        """Go to a voxel; return where it lies on the screen."""
        return tuple(self.page.evaluate(PLACE_OF, list(ijk)))

    def click(self, ijk) -> None:
        with self.change("/prompts"):
            self.page.mouse.click(*self.place(ijk))
        self.settle()

    def drag(self, start, end) -> None:
        with self.change("/prompts"):
            (x, y), (u, v) = self.place(start), self.place(end)
            self.page.mouse.move(x, y)
            self.page.mouse.down()
            self.page.mouse.move((x + u) / 2, (y + v) / 2)
            self.page.mouse.move(u, v)
            self.page.mouse.up()
        self.settle()

    def change(self, part: str):
        return self.page.expect_response(lambda answer: part in answer.url and answer.request.method != "GET")

    def settle(self) -> None:
        """Wait until the answer has been shown and kept."""
        self.page.wait_for_selector("body:not([data-busy])")

    def ml(self, name: str) -> float:
        text = self.page.locator("#structures li", has_text=name).locator("small").inner_text()
        return float(text.split()[0]) if text else 0.0

    def prompts(self) -> list[str]:
        return self.page.locator("#prompts button.name").all_inner_texts()

    def picture(self, name: str) -> None:
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=PICTURES / f"annotate-{name}.png")


@pytest.fixture
def anna(page, place) -> Annotator:
    """The annotator."""
    return Annotator(page, place.url)


def truth(name: str) -> np.ndarray:
    """Return the true voxels [k, j, i] of a structure."""
    return read_volume(SAMPLES / "truth" / f"{CASE}.nii.gz").array == TRUTH_VALUES[name]


def saved(place: Place, name: str) -> np.ndarray:
    """Return the voxels [k, j, i] of a structure in the submitted label."""
    label = place.folder / "studies" / "labels" / "final" / f"{CASE}.nii.gz"
    return read_volume(label).array == LABELS.index(name) + 1


def test_from_first_use_to_a_submitted_case(anna, place):
    liver, spleen = truth("liver"), truth("spleen")
    anna.page.goto(f"{anna.url}/")
    anna.page.click("text=the next case, in this browser")
    anna.page.wait_for_selector("body[data-ready]")
    anna.open()
    assert anna.page.is_disabled("#submit")
    assert "structure" in anna.page.inner_text("#hint")

    anna.page.click("#structures >> text=liver")
    anna.click(inside(liver))
    assert anna.ml("liver") > 0 and anna.prompts() == [f"+ inside, slice {inside(liver)[2]}"]
    anna.page.click("#structures >> text=spleen")
    assert anna.prompts() == []
    where = np.argwhere(spleen[inside(spleen)[2]])
    (top, left), (bottom, right) = where.min(axis=0), where.max(axis=0)
    k = inside(spleen)[2]
    anna.drag((int(left), int(top), k), (int(right), int(bottom), k))
    assert [text.partition(",")[0] for text in anna.prompts()] == ["▭ box"]
    anna.picture("work")

    assert "Draft saved" in anna.page.inner_text("#saved")
    anna.page.keyboard.press("Control+Enter")
    anna.page.wait_for_selector("#dialog[open] td:has-text('spleen')")
    anna.page.click("#yes")
    anna.page.wait_for_selector("body[data-submitted]")
    for name, true in (("liver", liver), ("spleen", spleen)):
        assert dice(saved(place, name), true) > 0.5, name
    anna.page.click("#yes")
    anna.page.wait_for_url(f"**/annotate/?image={CASES[1]}")
