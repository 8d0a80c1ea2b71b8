"""The loop in a browser: next case, annotate, submit, train, and the next click is answered by what was learnt."""

import json
import shutil
from collections.abc import Iterator

import pytest
from clinic import PICTURES, SAMPLES, Place, labelling
from learning import few

from slicecast.campaign.events import Kind
from slicecast.config import config_dir
from slicecast.labelling.finetuning.tuner import campaign_of, versions_beside
from slicecast.training.finetune import FILE

pytestmark = pytest.mark.browser

CASES = {"first": "ct_abdomen_a", "second": "ct_abdomen_b", "third": "ct_abdomen_a"}
"""Name of each case, and the sample scan that it is."""
LIVER_IJK = [60, 50, 17]
TRAINED_MS = 300_000


@pytest.fixture
def place(tmp_path, monkeypatch) -> Iterator[Place]:
    """A server on three scans that trains in few steps, and lets pass whatever comes of it."""
    studies, configs = tmp_path / "studies", tmp_path / "configs"
    studies.mkdir()
    for name, source in CASES.items():
        shutil.copy(SAMPLES / "studies" / f"{source}.nii.gz", studies / f"{name}.nii.gz")
    shutil.copytree(config_dir(), configs)
    (configs / FILE).write_text(json.dumps(few(round={"automatic": True})))
    monkeypatch.setenv("SLICECAST_CONFIGS", str(configs))
    with labelling(studies, tmp_path) as place:
        yield place


def click(page, case: str) -> None:
    """Click into the liver of a case from the page, as this person."""
    status = page.evaluate(
        """async ([name, params]) => {
            const body = new URLSearchParams({params: JSON.stringify(params)});
            return (await fetch(`/infer/sam2?image=${name}&output=json`, {method: "POST", body})).status;
        }""",
        [case, {"liver": [LIVER_IJK], "result_extension": ".nii.gz"}],
    )
    assert status == 200


def answered_by(place: Place) -> list[str]:
    """Return the weights of each answer, as the campaign recorded them."""
    campaign = campaign_of(versions_beside(place.folder / "studies"))
    try:
        return [event.data["model_hash"] for event in campaign.store.read() if event.kind is Kind.PREDICTED]
    finally:
        campaign.store.close()


def lease_next(page, place: Place) -> str:
    page.goto(f"{place.url}/campaign/")
    with page.expect_navigation():
        page.click("#next")
    return page.get_attribute("#case", "data-case")


def test_next_annotate_submit_train_promote_next(page, place):
    for _ in range(2):
        click(page, lease_next(page, place))
        page.reload()
        with page.expect_navigation():
            page.click("[data-action=submit]")
    page.goto(f"{place.url}/campaign/")
    assert "has learnt no label yet" in page.inner_text("#tuning")
    page.click("[data-train=POST]")
    page.wait_for_selector("#tuning[data-running]")
    page.wait_for_selector("#tuning:not([data-running])", timeout=TRAINED_MS)
    told = page.inner_text("#tuning")
    assert "The new weights gain" in told and "In use: sam2_nano@1" in told
    assert page.locator("#tuning tbody tr").first.inner_text().startswith("one click")
    page.screenshot(path=PICTURES / "learning.png", full_page=True)
    click(page, lease_next(page, place))
    first, second, third = answered_by(place)
    assert first == second != third
