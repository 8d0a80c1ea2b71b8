"""The description of the routes in a real browser that reaches nothing but this server."""

import shutil

import pytest
from clinic import SAMPLES, labelling

pytestmark = pytest.mark.browser


def test_the_routes_are_shown_without_a_network(page, tmp_path):
    studies = tmp_path / "studies"
    studies.mkdir()
    shutil.copy(SAMPLES / "studies" / "ct_abdomen_a.nii.gz", studies)
    elsewhere: list[str] = []
    with labelling(studies, tmp_path) as place:
        page.on("requestfinished", lambda done: None if done.url.startswith(place.url) else elsewhere.append(done.url))
        page.goto(f"{place.url}/docs")
        page.wait_for_selector("#operations-Sessions-open_session_slicecast_sessions_post", timeout=60_000)
        page.goto(f"{place.url}/redoc")
        page.wait_for_selector("h2:has-text('Open a session on an image')", timeout=60_000)
    # Redoc asks for its maker's logo; the page's policy refuses
    assert [url for url in elsewhere if not url.startswith(("data:", "blob:"))] == []
