"""OHIF at a server that asks for logins: opened under a name, as on a network, where a browser allows pages less."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from clinic import CLINIC, LABELS, PICTURES, Place, dice, inside, served_uids, truth_on, write_nifti_studies
from labelserver import copy_app
from viewer import WAIT_MS, Viewer

from slicecast.demo.server_process import serving
from slicecast.server.security.users import Users
from slicecast_lab.generated.sample_data import DICOM_CASE

pytestmark = pytest.mark.browser

USERS = {"anna": "annotator", "rita": "admin"}


@pytest.fixture
def tokens(tmp_path, monkeypatch) -> dict[str, str]:
    """The users' tokens, by name."""
    monkeypatch.setenv("SLICECAST_USERS", str(tmp_path / "users.json"))
    users = Users(tmp_path / "users.json")
    return {name: users.add(name, role=role) for name, role in USERS.items()}


@pytest.fixture
def place(tmp_path, tokens) -> Iterator[Place]:
    """A server with users."""
    studies, log = write_nifti_studies(tmp_path / "studies"), tmp_path / "server.log"
    options = ["--labels", ",".join(LABELS)]
    with serving(studies, app=copy_app(tmp_path / "app"), log=log, options=options) as server:
        yield Place(server.url, tmp_path)


@pytest.fixture
def refused(page) -> list[str]:
    """What the browser was refused, by the gate or by the page's own policy."""
    found: list[str] = []
    page.on("response", lambda answer: found.append(answer.url) if answer.status in (401, 403) else None)
    page.on("console", lambda message: found.append(message.text) if "Content Security" in message.text else None)
    return found


def log_in(page, name: str, token: str) -> None:
    page.fill("#username", name)
    page.fill("#password", token)
    page.click("button.primary")


def test_a_server_without_logins_shows_nothing_under_a_foreign_name(page, tmp_path):
    studies, app = write_nifti_studies(tmp_path / "studies"), copy_app(tmp_path / "app")
    with serving(studies, app=app, log=tmp_path / "server.log") as server:
        answer = page.goto(f"http://{CLINIC}:{urlsplit(server.url).port}/datastore/?output=all")
        assert answer.status == 403 and DICOM_CASE not in page.content()
        assert page.goto(f"{server.url}/datastore/?output=all").status == 200


def test_from_the_login_to_a_mask(page, place, tokens, refused):
    uid = served_uids(place.url, token=tokens["rita"])[DICOM_CASE]
    viewer = Viewer(page, f"http://{CLINIC}:{urlsplit(place.url).port}", PICTURES / "login")
    page.goto(f"{viewer.url}/ohif/monai-label?StudyInstanceUIDs={uid}", timeout=WAIT_MS)
    assert urlsplit(page.url).path == "/login"
    log_in(page, "anna", "guess")
    page.wait_for_selector(".wrong")
    assert "do not belong together" in page.inner_text("body")
    viewer.picture("1-wrong")
    refused.clear()

    log_in(page, "anna", tokens["anna"])
    assert viewer.wait_for_volume() == (96, 96, 24)
    assert uid in page.url and viewer.server() == f"{viewer.url}/"
    spleen = truth_on(viewer.grid(), DICOM_CASE, "spleen")
    viewer.connect()
    viewer.point_prompts("sam2")
    viewer.choose("spleen")
    viewer.click_voxel(inside(spleen))
    assert viewer.run().status == 200
    viewer.picture("2-first-click")
    shown, numbers = viewer.labelmap()
    assert dice(shown == numbers["spleen"], spleen) > 0.5
    assert viewer.next_sample()["StudyInstanceUID"]
    assert refused == []

    page.goto(f"{viewer.url}/campaign/")
    assert "anna" in page.inner_text("main")
    assert tokens["anna"] not in page.content() and not page.evaluate("document.cookie.includes('slicecast_login')")
    page.evaluate("fetch('/logout', {method: 'POST'})")
    page.goto(f"{viewer.url}/ohif/", timeout=WAIT_MS)
    assert urlsplit(page.url).path == "/login"
