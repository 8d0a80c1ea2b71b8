"""A login at an OpenID provider's own page, in Chromium: there, back, by role, and out of both again."""

from urllib.parse import urlsplit

import pytest
import yaml
from clinic import PICTURES
from labelserver import copy_app, write_studies
from openid import running_provider

from slicecast.config import config_dir
from slicecast.demo.server_process import serving

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("ignore")]  # the provider warns of its own library's past


@pytest.fixture
def url(tmp_path, monkeypatch):
    """A server whose people are known to a provider only."""
    with running_provider() as issuer:
        configs = tmp_path / "configs"
        configs.mkdir()
        for file in config_dir().glob("*.yaml"):
            (configs / file.name).write_bytes(file.read_bytes())
        settings = yaml.safe_load((configs / "server.yaml").read_text())
        settings["auth"] |= {"oidc_issuer": issuer, "oidc_audience": "slicecast", "oidc_client_secret": "x"}
        (configs / "server.yaml").write_text(yaml.safe_dump(settings))
        monkeypatch.setenv("SLICECAST_CONFIGS", str(configs))
        monkeypatch.setenv("SLICECAST_USERS", str(tmp_path / "none.json"))
        studies = write_studies(tmp_path / "studies")
        with serving(studies, app=copy_app(tmp_path / "app"), log=tmp_path / "server.log") as server:
            yield server.url


def go_there(page, url, name):
    """From a page that needs a login to the provider's, where a name is enough."""
    page.goto(f"{url}/campaign/")
    assert urlsplit(page.url).path == "/login"
    page.click("#openid")
    assert urlsplit(page.url).path == "/oauth2/authorize"
    page.get_by_role("button", name=name).click()


def test_there_and_back_by_role_and_out_of_both(page, url):
    go_there(page, url, "ada")
    page.wait_for_url(f"{url}/campaign/")
    assert "ada" in page.inner_text(".login")
    assert page.evaluate("fetch('/logs/').then(answer => answer.status)") == 403  # a reviewer
    assert not page.evaluate("document.cookie.includes('slicecast_login')")
    page.screenshot(path=PICTURES / "openid-in.png")

    page.get_by_role("link", name="Log out").click()
    assert urlsplit(page.url).path == "/oauth2/end_session"
    page.locator("button, input[type=submit]").first.click()
    page.wait_for_url(f"{url}/login**")
    page.goto(f"{url}/campaign/")
    assert urlsplit(page.url).path == "/login"


def test_without_a_role_one_stays_outside_and_is_told(page, url):
    go_there(page, url, "ben")
    page.wait_for_selector(".wrong")
    assert "gives you no role" in page.inner_text(".wrong")
    page.screenshot(path=PICTURES / "openid-no-role.png")
    page.goto(f"{url}/info/")
    assert urlsplit(page.url).path == "/login"
    go_there(page, url, "cleo")
    page.wait_for_url(f"{url}/campaign/")
    assert page.evaluate("fetch('/logs/').then(answer => answer.status)") != 403  # an admin
