"""The annotation page in a real browser, by mouse and keyboard, on sample scans: nothing is replaced."""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from accessible import serious
from clinic import LABELS, PICTURES, SAMPLES, TRUTH_VALUES, dice, inside
from labelserver import ROOT, copy_app

from slicecast.active.slices import STRATEGIES
from slicecast.demo.server_process import RunningServer, free_port, serving
from slicecast.prompts.simulate import deepest_point
from slicecast.volume import read_volume

pytestmark = pytest.mark.browser

PAGE = ROOT / "lib" / "slicecast" / "server" / "annotate"
CASES = ("ct_abdomen_a", "ct_abdomen_b")
CASE = CASES[0]
WIDTH, HEIGHT = 1280, 720
PATIENCE_MS = 120_000

PLACE_OF = """async (ijk) => {
  const { scan } = await import("/annotate/page/main.js");
  scan.goTo(ijk);
  const frame = document.getElementById("scan").getBoundingClientRect();
  return scan.canvasAt(ijk).map((at, place) => at + (place ? frame.top : frame.left));
}"""


SIZE = """async () => (await import("/annotate/page/main.js")).scan.size"""


@pytest.fixture(autouse=True)
def _viewer() -> None:
    if not (PAGE / "node_modules" / "@niivue").is_dir():
        pytest.skip("the viewer NiiVue is not installed; `make install` does it")


class Clinic:
    """A server on two sample scans, which can be killed and started again at the same address."""

    def __init__(self, folder: Path) -> None:
        self.studies, self._folder, self._port = folder / "studies", folder, free_port()
        self.studies.mkdir()
        for name in CASES:
            shutil.copy(SAMPLES / "studies" / f"{name}.nii.gz", self.studies)
        self._app = copy_app(folder / "app")
        self._running: list = []
        self.server: RunningServer
        self.start()

    def start(self) -> None:
        options = ["--labels", ",".join(LABELS)]
        context = serving(
            self.studies, app=self._app, log=self._folder / "server.log", port=self._port, options=options
        )
        self.server = context.__enter__()
        self._running.append(context)

    def kill(self) -> None:
        os.kill(self.server.pid, signal.SIGKILL)
        self._running.pop().__exit__(None, None, None)  # waits for its end; until then it may hold the port

    def stop(self) -> None:
        for context in self._running:
            context.__exit__(None, None, None)


@pytest.fixture
def clinic(tmp_path) -> Iterator[Clinic]:
    """A running server."""
    clinic = Clinic(tmp_path)
    yield clinic
    clinic.stop()


class Annotator:
    """A person at the page: looks at the screen, uses mouse and keyboard."""

    def __init__(self, page, clinic: Clinic) -> None:
        self.page, self.url = page, clinic.server.url
        page.set_viewport_size({"width": WIDTH, "height": HEIGHT})

    def call_yourself(self, name: str) -> None:
        self.page.context.add_cookies([{"name": "slicecast_user", "value": name, "url": self.url}])

    def open(self, case: str = CASE) -> None:
        self.page.goto(f"{self.url}/annotate/?image={case}")
        self.page.wait_for_selector("body[data-ready]")

    def place(self, ijk) -> tuple[float, float]:
        """Go to a voxel; return where it lies on the screen."""
        return tuple(self.page.evaluate(PLACE_OF, list(ijk)))

    def click(self, ijk, **how) -> None:
        with self.change("/prompts"):
            modifiers = how.pop("holding", None)
            x, y = self.place(ijk)
            if modifiers:
                self.page.keyboard.down(modifiers)
            self.page.mouse.click(x, y, **how)
            if modifiers:
                self.page.keyboard.up(modifiers)
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

    def press(self, key: str) -> None:
        with self.change("/slicecast/sessions/"):
            self.page.keyboard.press(key)
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


@contextmanager
def held(page, address: str) -> Iterator[None]:
    """Hold what the page asks of an address until the block ends, and the page has its answer: a slow connection."""
    waiting: list = []
    page.route(address, lambda route: waiting.append(route))
    yield
    assert waiting, address
    for route in waiting:
        with page.expect_event("requestfinished", lambda request, own=route.request: request == own):
            route.continue_()
    page.unroute(address)
    page.wait_for_timeout(500)  # what the page makes of it


@pytest.fixture
def anna(page, clinic) -> Annotator:
    """The annotator."""
    return Annotator(page, clinic)


def truth(name: str, case: str = CASE) -> np.ndarray:
    """Return the true voxels [k, j, i] of a structure."""
    return read_volume(SAMPLES / "truth" / f"{case}.nii.gz").array == TRUTH_VALUES[name]


def saved(clinic: Clinic, name: str, case: str = CASE) -> np.ndarray:
    """Return the voxels [k, j, i] of a structure in the submitted label."""
    label = clinic.studies / "labels" / "final" / f"{case}.nii.gz"
    return read_volume(label).array == LABELS.index(name) + 1


def test_from_first_use_to_a_submitted_case(anna, clinic):
    liver, spleen = truth("liver"), truth("spleen")
    anna.page.goto(f"{anna.url}/")
    anna.page.click("text=Open the next case")
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
        assert dice(saved(clinic, name), true) > 0.5, name
    anna.page.click("#yes")
    anna.page.wait_for_url(f"**/annotate/?image={CASES[1]}")


def test_the_readmes_first_case_in_the_browser(anna, clinic):
    """Its steps, to the letter, by mouse and keyboard alone."""
    anna.page.goto(f"{anna.url}/annotate/")
    anna.page.wait_for_selector("body[data-ready]")
    case = anna.page.inner_text("#name")
    liver = inside(truth("liver", case))
    anna.page.click("#structures >> text=liver")
    anna.click(liver)
    anna.click((liver[0] + 12, *liver[1:]), holding="Shift")
    anna.press("Control+z")
    assert anna.prompts() == [f"+ inside, slice {liver[2]}"]
    anna.page.keyboard.press("n")
    assert f"slice {anna.page.inner_text('#suggestion').split()[2]} " in anna.page.inner_text("#place")
    anna.page.click("#submit")
    anna.page.click("#yes")
    anna.page.wait_for_selector("body[data-submitted]")
    assert dice(saved(clinic, "liver", case), truth("liver", case)) > 0.5
    anna.page.click("#yes:has-text('Next case')")
    anna.page.wait_for_url(f"**/annotate/?image={next(name for name in CASES if name != case)}")


def test_the_next_cases_scan_is_there_before_it_is_asked_for(anna, clinic):
    """It opens without loading page or scan again, with nothing of the first case left, and can be worked on."""
    asked: list[str] = []
    anna.page.on("request", lambda request: asked.append(request.url))
    with anna.page.expect_response(f"**/scan.nii?image={CASES[1]}"):
        anna.open()
    anna.page.click("#structures >> text=liver")
    anna.click(inside(truth("liver")))
    submit(anna)
    before = len(asked)
    anna.page.click("#yes:has-text('Next case')")
    anna.page.wait_for_selector("body[data-ready]:not([data-submitted])")
    assert anna.page.inner_text("#name") == CASES[1] and anna.page.url.endswith(f"?image={CASES[1]}")
    assert not [url for url in asked[before:] if "scan.nii" in url or "/page/" in url]
    assert anna.prompts() == [] and anna.ml("liver") == 0 and anna.page.is_disabled("#submit")
    shown, stored = anna.page.evaluate(SIZE), read_volume(SAMPLES / "studies" / f"{CASES[1]}.nii.gz").array.shape
    assert tuple(shown) == stored[::-1]
    anna.page.click("#structures >> text=liver")
    anna.click(inside(truth("liver", CASES[1])))
    submit(anna)
    assert dice(saved(clinic, "liver", CASES[1]), truth("liver", CASES[1])) > 0.5
    anna.page.go_back()
    anna.page.wait_for_selector(f"#name:text-is('{CASE}')")


def test_there_is_no_next_case_before_this_one_is_open(anna):
    """Two that open at once would mix: the scan of one under the name of the other."""
    held = []
    anna.page.route("**/scan.nii?*", lambda route: held.append(route))
    with anna.page.expect_request("**/scan.nii?*"):
        anna.page.goto(f"{anna.url}/annotate/?image={CASE}")
    anna.page.wait_for_selector(f"#name:text-is('{CASE}')")
    assert anna.page.is_disabled("#next")
    held[0].continue_()
    anna.page.unroute("**/scan.nii?*")
    anna.page.wait_for_selector("body[data-ready]")
    assert anna.page.is_enabled("#next")


def test_a_case_that_is_left_is_not_computed_any_more(anna):
    """What was said of it stays, and nothing of it reaches the next case."""
    liver = inside(truth("liver"))
    anna.open()
    anna.page.click("#structures >> text=liver")
    anna.page.route("**/propagate*", lambda route: None)  # never answered
    anna.page.mouse.click(*anna.place(liver))
    anna.page.wait_for_selector("#stop:not([hidden])")
    with anna.page.expect_event("requestfailed", lambda asked: "/propagate" in asked.url):
        anna.page.click("#next")
    anna.page.unroute("**/propagate*")
    anna.page.wait_for_selector(f"#name:text-is('{CASES[1]}')")
    anna.page.wait_for_selector("body[data-ready]")
    assert anna.page.is_hidden("#message") and anna.page.is_hidden("#stop") and anna.ml("liver") == 0
    sessions = anna.page.request.get(f"{anna.url}/slicecast/sessions").json()["sessions"]
    (left,) = [session for session in sessions if session["image"] == CASE]
    assert not left["propagating"] and len(left["prompts"]) == 1

    anna.open()
    assert anna.page.is_hidden("#message") and anna.ml("liver") > 0
    with held(anna.page, "**/draft"):
        with anna.page.expect_request("**/draft"):
            anna.page.mouse.click(*anna.place((liver[0] + 3, *liver[1:])))
        anna.page.click("#next")
        anna.page.wait_for_selector(f"#name:text-is('{CASES[1]}')")
        anna.page.wait_for_selector("body[data-ready]")
    assert anna.page.is_hidden("#message") and anna.page.is_disabled("#submit") and not anna.page.inner_text("#saved")


def test_a_slow_answer_is_for_what_was_asked(anna):
    """The structure that was chosen then; and while another axis comes, nothing is drawn that would be lost."""
    liver = inside(truth("liver"))
    anna.open()
    anna.page.click("#structures >> text=liver")
    anna.click(liver)
    with anna.change("/prompts"), held(anna.page, "**/readings?*"):
        with anna.page.expect_request("**/readings?*"):
            anna.page.keyboard.press("r")
        anna.page.click("#structures >> text=spleen")
    anna.settle()
    assert anna.prompts() == []
    anna.page.click("#structures >> text=liver")
    assert len(anna.prompts()) == 2

    anna.page.click("summary")
    with held(anna.page, "**/slicecast/sessions"):
        anna.page.select_option("#axis", "coronal")
        with anna.page.expect_request("**/slicecast/sessions"):
            anna.page.click("#yes")
        anna.page.mouse.click(*anna.place((liver[0] + 3, *liver[1:])))
        anna.page.wait_for_selector("#message:not([hidden]):has-text('being opened')")
        assert anna.page.is_disabled("#next")
    anna.settle()
    assert anna.page.inner_text("#place").startswith("coronal") and anna.ml("liver") > 0
    assert anna.page.is_enabled("#next")


def test_axis_grey_values_and_strategy_can_be_chosen(anna):
    """What is drawn stays; prompts become painted slices along the other axis."""
    i, j, k = inside(truth("liver"))
    anna.open()
    anna.page.click("#structures >> text=liver")
    anna.click((i, j, k))
    before = anna.ml("liver")
    anna.page.click("summary")
    for choice, value in (("#axis", "coronal"), ("#grey", "liver")):
        anna.page.select_option(choice, value)
        with anna.page.expect_response("**/draft"), anna.change("/propagate"):
            anna.page.click("#yes")
        anna.settle()
        assert anna.ml("liver") == pytest.approx(before)
        assert all("painted" in text for text in anna.prompts())
    assert anna.page.inner_text("#place").startswith("coronal slice ")
    session = anna.page.request.get(f"{anna.url}/slicecast/sessions").json()["sessions"]
    assert [(one["axis"], one["window"]) for one in session] == [("coronal", "liver")]
    with anna.page.expect_request("**/propagate?slice_strategy=worst"):
        anna.page.select_option("#strategy", "worst")
    anna.settle()
    assert set(anna.page.locator("#strategy option").evaluate_all("all => all.map(one => one.value)")) == {
        "",
        *STRATEGIES,
    }
    anna.click((i, j + 4, k))
    assert anna.prompts()[-1] == f"+ inside, slice {j + 4}"


def test_all_slice_axes_are_one_tick(anna):
    anna.open()
    anna.page.click("#structures >> text=liver")
    anna.click(inside(truth("liver")))
    alone, prompts = anna.ml("liver"), anna.prompts()
    anna.page.click("summary")
    for expected in (True, False):
        with anna.change("/propagate"):
            anna.page.set_checked("#axes", expected)
        anna.settle()
        assert anna.prompts() == prompts
        assert (anna.ml("liver") != pytest.approx(alone)) is expected
    with anna.change("/propagate"):
        anna.page.click("#undo")
    anna.settle()
    assert anna.page.is_checked("#axes") and anna.ml("liver") != pytest.approx(alone)


DRAWN = """async () => (await import("/annotate/page/main.js")).scan.prompts"""

SHOWN = """async (number) => {
  const { scan } = await import("/annotate/page/main.js");
  return [...scan.slice(1, number)];
}"""


def test_another_reading_of_a_box_can_be_chosen(anna):
    """What is bright in it, what is dark, and what was answered first; each is one step back."""
    liver = truth("liver")
    i, j, k = inside(liver)
    rows, columns = np.flatnonzero(liver[k].any(axis=1)), np.flatnonzero(liver[k].any(axis=0))
    anna.open()
    anna.page.click("#structures >> text=liver")
    anna.page.keyboard.press("r")
    anna.page.wait_for_selector("#message:not([hidden]):has-text('has no click and no box')")
    anna.place((i, j, k))
    anna.drag(*((int(columns[end]), int(rows[end]), k) for end in (0, -1)))

    def shown() -> np.ndarray:
        return np.reshape(anna.page.evaluate(SHOWN, int(k)), liver[k].shape) > 0

    first = shown()
    anna.press("r")
    assert anna.prompts()[-1] == f"✎ painted, slice {k}"
    assert dice(shown(), liver[k]) > dice(first, liver[k])
    assert anna.page.is_hidden("#message")
    anna.picture("reading")
    readings = [shown()]
    for _ in range(4):
        with anna.change("/prompts"):
            anna.page.click("#reading")
        anna.settle()
        readings.append(shown())
        if (shown() == first).all():
            break
    assert (readings[-1] == first).all() and 2 <= len(readings) <= 5
    anna.press("Control+z")
    assert (shown() == readings[-2]).all()


def test_a_line_is_drawn_through_the_slices(anna):
    """By clicks on several slices; vertex by vertex it can be taken back, or dropped, before it is sent."""
    liver = truth("liver")
    shown = np.flatnonzero(liver.any(axis=(1, 2)))
    deepest = [(int(n), *deepest_point(liver[n])[0]) for n in shown[[0, len(shown) // 2, -1]]]
    first, middle, last = [(i, j, k) for k, j, i in deepest]
    anna.open()
    anna.page.click("#structures >> text=liver")
    anna.page.keyboard.press("d")

    def vertex(ijk, **how) -> int:
        anna.page.mouse.click(*anna.place(ijk), **how)
        return len(anna.page.evaluate(DRAWN)[-1]["vertices"])

    assert anna.page.is_disabled("#end") and [vertex(first), vertex(middle), vertex(last)] == [1, 2, 3]
    anna.page.keyboard.press("Control+z")
    assert vertex(last) == 3
    anna.page.keyboard.press("Escape")
    assert vertex(first) == 1 and anna.prompts() == []
    anna.page.keyboard.press("Enter")
    anna.page.wait_for_selector("#message:not([hidden]):has-text('needs two vertices')")
    assert vertex(middle) == 2 and vertex(last) == 3
    anna.place(middle)
    anna.picture("line-drawn")
    anna.press("Enter")
    assert anna.prompts() == [f"↗ line, {len(shown)} slices"] and anna.ml("liver") > 0
    drawn = anna.page.evaluate(DRAWN)[0]["vertices"]
    assert np.abs(np.subtract(drawn, (first, middle, last))).max() <= 1
    mask = np.array(anna.page.evaluate(SHOWN, middle[2])).reshape(liver.shape[1:])
    assert dice(mask > 0, liver[middle[2]]) > 0.5
    anna.picture("line")
    anna.press("Control+z")
    assert anna.prompts() == [] and anna.ml("liver") == 0
    vertex(first)
    with anna.change("/prompts"):
        vertex(middle, click_count=2)
    anna.settle()
    assert anna.prompts() == [f"↗ line, {middle[2] - first[2] + 1} slices"]


def test_every_gesture_can_be_taken_back(anna):
    i, j, k = inside(truth("liver"))
    anna.open()
    anna.page.click("#structures >> text=liver")
    anna.click((i, j, k))
    first = anna.ml("liver")
    anna.click((i + 12, j, k), button="right")
    anna.click((i, j + 4, k + 2), holding="Shift")
    assert [text.partition(",")[0].split()[1] for text in anna.prompts()] == ["inside", "outside", "outside"]
    anna.place((i, j, k + 5))
    anna.press("l")
    anna.place((i, j, 0))
    anna.press("a")
    assert anna.prompts()[-1] == "∅ absent, slice 0"
    anna.page.keyboard.press("b")
    anna.drag((i, j, k - 3), (i + 3, j, k - 3))
    assert anna.prompts()[-1] == f"✎ painted, slice {k - 3}"

    for left in (4, 3, 3, 2, 1):
        anna.press("Control+z")
        assert len(anna.prompts()) == left
    assert anna.ml("liver") == pytest.approx(first)
    for left in (2, 3, 3, 4, 5):
        anna.press("Control+y")
        assert len(anna.prompts()) == left
    with anna.change("/prompts/"):
        anna.page.click("#prompts li:nth-child(2) [title='Remove this prompt']")
    anna.settle()
    assert len(anna.prompts()) == 4


def test_a_reload_and_a_killed_server_lose_nothing(anna, clinic):
    liver = truth("liver")
    anna.open()
    anna.page.click("#structures >> text=liver")
    anna.click(inside(liver))
    before = anna.prompts(), anna.ml("liver")
    anna.page.reload()
    anna.page.wait_for_selector("body[data-ready]")
    anna.page.click("#structures >> text=liver")
    assert (anna.prompts(), anna.ml("liver")) == before

    clinic.kill()
    x, y = anna.place((inside(liver)[0] + 3, *inside(liver)[1:]))
    anna.page.mouse.click(x, y)
    anna.page.wait_for_selector("#message:not([hidden]):has-text('cannot be reached')")
    clinic.start()
    anna.page.wait_for_selector("#prompts li:nth-child(2)")
    anna.settle()
    assert anna.page.is_hidden("#message")
    anna.page.keyboard.press("Control+z")
    anna.settle()
    anna.page.wait_for_selector("#prompts li:nth-child(2)", state="detached")
    assert (anna.prompts(), anna.ml("liver")) == before

    anna.page.mouse.click(*anna.place((inside(liver)[0] + 3, *inside(liver)[1:])))
    anna.page.wait_for_selector("#stop:not([hidden])")  # in the middle of an answer
    clinic.kill()
    clinic.start()
    anna.settle()
    assert anna.page.is_hidden("#message") and len(anna.prompts()) == 2 and anna.ml("liver") > 0


def test_all_that_was_done_without_the_server_counts_as_it_was_meant(anna, clinic):
    """Each click once, and for the structure that was chosen at that time."""
    liver, spleen = inside(truth("liver")), inside(truth("spleen"))
    anna.open()
    anna.page.click("#structures >> text=liver")
    clinic.kill()
    anna.page.mouse.click(*anna.place(liver))
    anna.page.wait_for_selector("#message:not([hidden]):has-text('cannot be reached')")
    anna.page.mouse.click(*anna.place((liver[0] + 3, *liver[1:])))
    anna.page.click("#structures >> text=spleen")
    anna.page.mouse.click(*anna.place(spleen))
    clinic.start()
    anna.settle()
    (session,) = anna.page.request.get(f"{anna.url}/slicecast/sessions").json()["sessions"]
    given = [(prompt["object"], prompt["ijk"]) for prompt in session["prompts"]]
    assert given == [("liver", [*liver]), ("liver", [liver[0] + 3, *liver[1:]]), ("spleen", [*spleen])]
    assert anna.ml("liver") > 0 and anna.ml("spleen") > 0


def test_two_browsers_on_one_case(anna, browser, clinic):
    """Whoever comes second sees who holds it and cannot change it; once it is theirs, they go on from that work."""
    anna.call_yourself("Anna")
    anna.open()
    anna.page.click("#structures >> text=liver")
    anna.click(inside(truth("liver")))
    context = browser.new_context()
    context.set_default_timeout(PATIENCE_MS)
    bob = Annotator(context.new_page(), clinic)
    bob.call_yourself("Bob")
    bob.open()
    assert f"'{CASE}' is with Anna" in bob.page.inner_text("#message")
    assert bob.page.is_hidden("#tools") and bob.page.is_hidden("#submit")
    ours = {"X-Requested-With": "slicecast"}
    for action in ("take", "submit", "release"):
        refused = bob.page.request.post(f"{bob.url}/campaign/case/{CASE}/{action}", headers=ours)
        assert not refused.ok, action

    released = anna.page.request.post(f"{anna.url}/campaign/case/{CASE}/release", headers=ours)
    assert released.ok
    bob.open()
    assert bob.ml("liver") == anna.ml("liver")
    bob.page.click("#structures >> text=spleen")
    bob.click(inside(truth("spleen")))
    x, y = anna.place(inside(truth("liver")))
    anna.page.mouse.click(x, y)  # her page is open still
    anna.page.wait_for_selector("#message:has-text('is with Bob')")
    anna.picture("with-bob")
    submit(bob)
    assert saved(clinic, "liver").any() and saved(clinic, "spleen").any()
    context.close()


def test_by_touch_alone(browser, clinic):
    """A tablet: no right button, no keys, no wheel."""
    context = browser.new_context(has_touch=True)
    context.set_default_timeout(PATIENCE_MS)
    anna = Annotator(context.new_page(), clinic)
    anna.page.set_viewport_size({"width": 820, "height": 1180})
    i, j, k = inside(truth("liver"))
    anna.open()
    anna.page.tap("#structures >> text=liver")
    for tool, voxel in (("Click", (i, j, k)), ("Outside", (i + 12, j, k))):
        anna.page.tap(f"#tools >> text={tool}")
        with anna.change("/prompts"):
            anna.page.touchscreen.tap(*anna.place(voxel))
        anna.settle()
    assert [text.split()[1] for text in anna.prompts()] == ["inside,", "outside,"]
    anna.page.tap("#forth")
    assert anna.page.inner_text("#place").startswith(f"axial slice {k + 1} ")
    anna.picture("tablet")
    context.close()


def shown_colours(anna: Annotator) -> set[int]:
    """Return which values the mask on view holds."""
    return set(
        anna.page.evaluate("""async () => [...new Set((await import("/annotate/page/main.js")).scan.mask.img)]""")
    )


def test_a_reviewer_compares_rejects_at_a_slice_and_approves(anna, clinic):
    liver, spleen = inside(truth("liver")), inside(truth("spleen"))
    anna.call_yourself("Anna")
    anna.open()
    anna.page.click("#structures >> text=liver")
    anna.click(liver)
    submit(anna)
    anna.open()
    anna.page.click("#structures >> text=spleen")
    anna.click(spleen)

    anna.call_yourself("Rita")
    anna.open()  # Anna holds it
    assert f"'{CASE}' is with Anna" in anna.page.inner_text("#message")
    assert anna.page.is_hidden("#tools") and anna.page.is_hidden("#submit")
    anna.page.goto(f"{anna.url}/campaign/case/{CASE}")
    anna.page.click("#look")
    anna.page.wait_for_selector("body[data-ready]")
    assert anna.page.locator("#first option").all_inner_texts() == ["label by Anna", "draft by Anna"]
    assert shown_colours(anna) == {0, 1}
    anna.page.select_option("#second", "draft by Anna")
    anna.page.wait_for_selector("#differ:not([hidden])")
    assert shown_colours(anna) == {0, 1, 3}  # the liver in both, the spleen in the draft only
    with held(anna.page, "**/mask.nii?*title=draft*"):
        anna.page.select_option("#first", "draft by Anna")
        for select, title in (("#second", ""), ("#first", "label by Anna")):
            anna.page.select_option(select, title)
        anna.page.wait_for_selector("#legend", state="hidden")
    assert shown_colours(anna) == {0, 1}, "an answer that comes late is not shown under another title"
    anna.page.select_option("#second", "draft by Anna")
    anna.page.wait_for_selector("#differ:not([hidden])")
    anna.page.keyboard.press("n")
    anna.picture("review")
    number = anna.page.inner_text("#at")
    anna.page.click("#reject")
    assert "what is to be done again" in anna.page.inner_text("#message")
    anna.page.fill("#note", "the spleen is missing")
    anna.page.click("#reject")
    anna.page.wait_for_selector("body[data-judged=reject]")

    anna.call_yourself("Anna")
    anna.open()
    assert f"Slice {number} (axial): the spleen is missing" in anna.page.inner_text("#why")
    assert anna.page.inner_text("#place").startswith(f"axial slice {number} ")
    submit(anna)
    anna.page.goto(f"{anna.url}/annotate/?image={CASE}&review")
    anna.page.wait_for_selector("body[data-ready]")
    assert anna.page.is_disabled("#approve")  # her own
    assert any(text.startswith("label replaced at") for text in anna.page.locator("#first option").all_inner_texts())
    anna.call_yourself("Rita")
    anna.page.reload()
    anna.page.wait_for_selector("body[data-ready]")
    anna.page.fill("#note", "a fine spleen")
    number = anna.page.inner_text("#at")
    anna.page.click("#approve")
    anna.page.wait_for_selector("body[data-judged=approve]")
    anna.page.goto(f"{anna.url}/campaign/case/{CASE}")
    assert f"Slice {number} (axial): a fine spleen" in anna.page.inner_text("#case")


def test_a_slice_that_is_asked_for_is_shown_along_its_axis(anna):
    """In a session that goes on along another axis it is named."""
    ours = {"X-Requested-With": "slicecast", "Content-Type": "application/json"}
    asked = anna.page.request.post(
        f"{anna.url}/campaign/case/{CASE}/slice", data='{"slice": 20, "axis": "coronal"}', headers=ours
    )
    assert asked.ok, asked.text()
    anna.open()
    assert anna.page.inner_text("#place").startswith("coronal slice 20 ")
    anna.page.click("summary")
    anna.page.select_option("#axis", "axial")
    anna.page.wait_for_selector("#place:has-text('axial')")
    anna.open()
    assert "Somebody asks for coronal slice 20" in anna.page.inner_text("#message")


def submit(anna: Annotator) -> None:
    anna.page.keyboard.press("Control+Enter")
    anna.page.wait_for_selector("#dialog[open]")
    anna.page.click("#yes")
    anna.page.wait_for_selector("body[data-submitted]")


def test_guided_from_slice_to_slice(anna):
    """The view goes to the suggested slice; holes are filled, and a range is locked."""
    i, j, k = inside(truth("liver"))
    anna.open()
    anna.page.check("#guide")
    anna.page.click("#structures >> text=liver")
    anna.click((i, j, k))
    suggestion = anna.page.inner_text("#suggestion")
    number = int(suggestion.split()[2])
    assert suggestion.startswith("Check slice ") and f"axial slice {number} " in anna.page.inner_text("#place")
    anna.page.select_option("#window", "lung")
    anna.picture("guided")
    anna.click((i, j, k + 2))
    anna.page.keyboard.press("p")
    assert anna.page.inner_text("#place").startswith(f"axial slice {number} ")
    opacity = anna.page.input_value("#opacity")
    anna.page.keyboard.press("+")
    assert anna.page.input_value("#opacity") > opacity

    anna.page.uncheck("#guide")
    anna.page.keyboard.press("b")
    for start, end in (((2, 2), (12, 2)), ((12, 2), (12, 12)), ((12, 12), (2, 12)), ((2, 12), (2, 2))):
        anna.drag((*start, 1), (*end, 1))
    anna.place((7, 7, 1))
    ring = area(anna, 1)
    anna.press("h")
    assert area(anna, 1) > ring + 9
    anna.place((i, j, k))
    anna.press("l")
    anna.place((i, j, k + 3))
    anna.press("Shift+L")
    session = anna.page.request.get(f"{anna.url}/slicecast/sessions").json()["sessions"][0]
    assert session["accepted"]["liver"] == [k, k + 1, k + 2, k + 3]


def area(anna: Annotator, number: int) -> int:
    """Return the pixels of the structures on an axial slice."""
    count = """async (k) => {
      const { scan } = await import("/annotate/page/main.js");
      let found = 0;
      scan.each(k, (_, voxel) => { found += scan.mask.img[voxel] > 0 ? 1 : 0; });
      return found;
    }"""
    return anna.page.evaluate(count, number)


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_the_pages_are_accessible(anna, theme):
    """By axe: the annotation page in work, with the list of keys open, and in review; and those that lead to it."""
    anna.open()
    if theme == "light":
        anna.page.click("#theme")
    anna.page.click("#structures >> text=liver")
    anna.click(inside(truth("liver")))
    assert serious(anna.page) == []
    anna.picture(theme)
    anna.page.keyboard.press("?")
    assert serious(anna.page) == []
    anna.page.goto(f"{anna.url}/annotate/?image={CASE}&review")
    anna.page.wait_for_selector("body[data-ready]")
    assert serious(anna.page) == []
    others = {"start": "/", "login": "/login", "campaign": "/campaign/", "case": f"/campaign/case/{CASE}"}
    for name, path in others.items():
        anna.page.goto(anna.url + path)
        assert anna.page.get_attribute("html", "data-theme") == theme
        assert serious(anna.page) == [], name
        anna.picture(f"{name}-{theme}")
