"""The manual in a real browser that reaches nothing but this server: found from the first page, searched, read."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from clinic import PICTURES
from labelserver import copy_app, write_studies

from slicecast import server
from slicecast.demo.server_process import serving

pytestmark = pytest.mark.browser


def test_it_is_searched_without_a_network(page, tmp_path):
    if not (Path(server.__file__).parent / "manual").is_dir():
        pytest.skip("the manual is not built: make docs")
    elsewhere: list[str] = []
    refused: list[str] = []
    page.on("request", lambda asked: elsewhere.append(asked.url) if asked.url.startswith("http") else None)
    page.on("console", lambda message: refused.append(message.text) if message.type == "error" else None)
    studies = write_studies(tmp_path / "studies")
    with serving(studies, app=copy_app(tmp_path / "app"), log=tmp_path / "server.log") as labelling:
        page.goto(labelling.url)
        page.click("a[href='/manual/']")
        page.get_by_role("button", name="Search").click()
        page.keyboard.type("backup", delay=50)
        page.get_by_text(re.compile(r"^\d+ results$")).wait_for(timeout=60_000)
        page.screenshot(path=PICTURES / "manual-search.png")
        page.keyboard.press("Enter")  # opens the first
        page.wait_for_url(re.compile(r"/manual/deployment/.*#backup-and-restore$"))
        assert "slicecast restore" in page.inner_text("article")
        page.screenshot(path=PICTURES / "manual-found.png")
    assert {urlsplit(url).netloc for url in elsewhere} == {urlsplit(labelling.url).netloc}
    assert refused == []
