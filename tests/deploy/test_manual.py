"""The documentation as a site: built, served, and where errors lead."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from labelserver import TestClient, app_settings, copy_app, write_studies

from slicecast import errors
from slicecast.server import app as application

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    program = Path(sys.executable).parent / "zensical"
    if not program.exists():
        pytest.skip("the site's builder is not installed: make docs")
    place = tmp_path_factory.mktemp("site")
    shutil.copy(ROOT / "mkdocs.yml", place)
    shutil.copytree(ROOT / "docs", place / "docs")
    done = subprocess.run([program, "build"], cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return place / "lib" / "slicecast" / "server" / "manual"


def test_it_needs_no_other_server_and_can_be_searched(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    assert not [page for page in pages if 'src="http' in page.read_text(encoding="utf-8")]
    assert "propagation" in json.dumps(json.loads((site / "search.json").read_text(encoding="utf-8")))


def test_the_server_shows_it_and_errors_lead_to_their_lines(site, tmp_path, monkeypatch):
    monkeypatch.setattr(application, "MANUAL", site)
    studies = write_studies(tmp_path / "studies")
    with (
        app_settings(copy_app(tmp_path / "app"), studies, {"preannotate": "false"}),
        TestClient(application.create_app()) as client,
    ):
        assert '"/manual/"' in client.get("/").text
        answer = client.get("/slicecast/sessions/none")
        target, _, relation = answer.headers["Link"].partition(">; ")
        page, _, name = target.removeprefix("<").partition("#:~:text=")
        assert (answer.status_code, relation, name) == (404, 'rel="help"', "UnknownSession")
        shown = client.get(page)
        assert (
            shown.status_code == 200 and "script-src 'self' 'unsafe-inline'" in shown.headers["Content-Security-Policy"]
        )
        page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
        for status in re.findall(r"^### (\d+)$", page, re.MULTILINE):
            assert f'id="{status}"' in shown.text
        for kind in vars(errors).values():
            if isinstance(kind, type) and issubclass(kind, errors.SlicecastError) and kind is not errors.SlicecastError:
                assert f"<code>{kind.__name__}</code>" in shown.text
