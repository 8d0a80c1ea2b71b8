"""The page /campaign/ in a real browser: name, next case, result, slice, submit, review."""

import json
import shutil
import urllib.parse
import urllib.request
from collections.abc import Iterator

import pytest
from clinic import PICTURES, SAMPLES, Place, labelling

pytestmark = pytest.mark.browser

CASES = ("ct_abdomen_a", "ct_abdomen_b", "mr_brain_a")
LIVER_IJK = [60, 50, 17]
ANSWER_MS = 120_000


@pytest.fixture
def place(tmp_path) -> Iterator[Place]:
    """A server on a folder of NIfTI files."""
    studies = tmp_path / "studies"
    studies.mkdir()
    for name in CASES:
        shutil.copy(SAMPLES / "studies" / f"{name}.nii.gz", studies)
    with labelling(studies, tmp_path) as place:
        yield place


def click(place: Place, case: str, who: str) -> None:
    """Segment a case as OHIF does, with the cookie that the page sets."""
    body = urllib.parse.urlencode(
        {"params": json.dumps({"liver": [LIVER_IJK], "result_extension": ".nii.gz"})}
    ).encode()
    request = urllib.request.Request(
        f"{place.url}/infer/sam2?image={case}&output=json", data=body, headers={"Cookie": f"slicecast_user={who}"}
    )
    urllib.request.urlopen(request, timeout=ANSWER_MS / 1000).close()


def call_yourself(page, name: str) -> None:
    page.fill("input[name=who]", name)
    with page.expect_navigation():
        page.click("#who button")


def press(page, action: str) -> None:
    with page.expect_navigation():
        page.click(f"[data-action={action}]")


def picture(page, name: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.wait_for_load_state("networkidle")
    page.screenshot(path=PICTURES / f"campaign-{name}.png", full_page=True)


def test_from_the_first_visit_to_an_approved_case(page, place):
    page.goto(f"{place.url}/campaign/")
    assert "known only by your address" in page.inner_text("main")
    assert page.inner_text("main").count("Not enough data yet") == 4
    call_yourself(page, "Anna")
    with page.expect_navigation():
        page.click("#next")
    case = page.get_attribute("#case", "data-case")
    assert case in CASES and page.get_attribute("#case", "data-mine") == "1"
    assert page.is_disabled("[data-action=submit]")
    assert page.evaluate("document.querySelector('.montage').naturalWidth") > 400

    click(place, case, "Anna")
    page.reload()
    assert page.locator(".bars button").count() > 3 and page.is_enabled("[data-action=submit]")
    with page.expect_navigation():
        page.locator(".bars button").nth(1).click()
    assert "is asked for" in page.inner_text("main")
    picture(page, "case")
    press(page, "submit")
    assert page.inner_text("h1 .pill") == "submitted" and page.is_disabled("[data-action=approve]")

    page.goto(f"{place.url}/campaign/")
    call_yourself(page, "Rita")
    page.click(f"text={case} >> nth=0")
    page.wait_for_selector("[data-action=reject]")
    page.once("dialog", lambda dialog: dialog.accept("the lower end is missing"))
    press(page, "reject")
    assert "the lower end is missing" in page.inner_text("main")

    page.goto(f"{place.url}/campaign/")
    call_yourself(page, "Anna")
    with page.expect_navigation():
        page.click("#next")
    assert page.get_attribute("#case", "data-case") == case  # what was rejected comes first
    press(page, "submit")
    page.goto(f"{place.url}/campaign/")
    call_yourself(page, "Rita")
    page.goto(f"{place.url}/campaign/case/{case}")
    press(page, "approve")
    page.goto(f"{place.url}/campaign/")
    assert "1 of 3 cases labelled" in page.inner_text("h1")
    picture(page, "overview")


def test_another_persons_case_is_refused_with_a_sentence(page, place):
    page.goto(f"{place.url}/campaign/")
    call_yourself(page, "Bob")
    page.goto(f"{place.url}/campaign/case/{CASES[0]}")
    body = b"{}"
    headers = {"X-Requested-With": "slicecast", "X-Slicecast-User": "Anna", "Content-Type": "application/json"}
    urllib.request.urlopen(
        urllib.request.Request(f"{place.url}/campaign/case/{CASES[0]}/take", data=body, headers=headers), timeout=30
    ).close()
    page.click("[data-action=take]")
    page.wait_for_selector("#message:not([hidden])")
    assert f"'{CASES[0]}' is with Anna for another 30 min" in page.inner_text("#message")


def test_the_case_opens_in_ohif(page, place):
    page.goto(f"{place.url}/campaign/case/{CASES[0]}")
    with page.expect_navigation(url="**/ohif/monai-label**", timeout=ANSWER_MS):
        page.click("text=Open in OHIF")
    assert "StudyInstanceUIDs=" in page.url
    page.wait_for_selector("canvas", timeout=ANSWER_MS)
