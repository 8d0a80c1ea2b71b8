"""Tokens of an OpenID provider that runs: found by discovery, signed by its keys, roles from claims."""

from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from labelserver import TestClient, app_settings, copy_app, write_studies
from openid import running_provider, settings_for

from slicecast.server.app import create_app
from slicecast.server.security.logins import COOKIE

pytestmark = pytest.mark.filterwarnings("ignore")  # of the provider, which warns of its own library's past


@pytest.fixture(scope="module")
def issuer():
    with running_provider() as address:
        yield address


def token(issuer, name, *, client="slicecast"):
    """Go the way of a person's browser: log in there, come back with a code, and change it for a token."""
    described = httpx.get(f"{issuer}/.well-known/openid-configuration").json()
    back = "http://localhost/back"
    asked = {"client_id": client, "redirect_uri": back, "response_type": "code", "scope": "openid profile"}
    sent = httpx.post(described["authorization_endpoint"], params=asked, data={"sub": name})
    code = parse_qs(urlsplit(sent.headers["location"]).query)["code"][0]
    given = {"grant_type": "authorization_code", "code": code, "redirect_uri": back, "client_id": client}
    return httpx.post(described["token_endpoint"], data={**given, "client_secret": "x"}).json()["id_token"]


@pytest.fixture(scope="module")
def client(issuer, tmp_path_factory):
    place = tmp_path_factory.mktemp("openid")
    write_studies(place / "studies")
    settings = settings_for(issuer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLICECAST_USERS", str(place / "none.json"))
        patch.setattr("slicecast.server.app.server_settings", lambda: settings)
        with (
            app_settings(copy_app(place / "app"), place / "studies", {}, MONAI_LABEL_AUTH_ENABLE=False),
            TestClient(create_app(), raise_server_exceptions=False) as client,
        ):
            yield client


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def test_roles_come_from_claims(issuer, client):
    assert client.get("/info/").status_code == 401
    ada, cleo = (bearer(token(issuer, name)) for name in ("ada", "cleo"))
    assert client.get("/info/", headers=ada).status_code == 200
    assert client.get("/auth/token/valid", headers=ada).json()["username"] == "ada"
    assert client.get("/logs/", headers=ada).status_code == 403
    assert client.get("/logs/", headers=cleo).status_code == 404  # let in; there is no log here


def test_no_role_no_entry(issuer, client):
    assert client.get("/info/", headers=bearer(token(issuer, "ben"))).status_code == 401


def test_tokens_for_other_programs_or_changed_ones_are_refused(issuer, client):
    assert client.get("/info/", headers=bearer(token(issuer, "ada", client="other"))).status_code == 401
    head, _, signature = token(issuer, "ben").split(".")
    other = token(issuer, "cleo").split(".")[1]
    assert client.get("/info/", headers=bearer(f"{head}.{other}.{signature}")).status_code == 401


def sent_back(client, name, wanted="/campaign/"):
    """Go to the provider as a browser does, and say there who it is; the address that it sends one back to."""
    client.cookies.clear()
    there = client.get("/login/openid", params={"next": wanted}, follow_redirects=False)
    assert there.status_code == 303 and "code_challenge_method=S256" in there.headers["location"]
    sent = httpx.post(there.headers["location"], data={"sub": name})
    return sent.headers["location"].removeprefix("http://testserver")


def test_a_browser_goes_there_and_comes_back_to_where_it_wanted(issuer, client):
    entered = client.get(sent_back(client, "ada"), follow_redirects=False)
    assert (entered.status_code, entered.headers["location"]) == (303, "/campaign/")
    assert client.get("/auth/token/valid").json()["username"] == "ada"
    assert client.get("/logs/").status_code == 403  # a reviewer
    left = client.get("/logout", follow_redirects=False).headers["location"]
    assert left.startswith(f"{issuer}/") and parse_qs(urlsplit(left).query)["id_token_hint"]
    assert client.get("/info/").status_code == 401


@pytest.mark.parametrize("way", ["no role", "another browser", "twice", "changed state", "no code"])
def test_nobody_else_comes_back(client, way):
    back = sent_back(client, "ben" if way == "no role" else "ada", wanted="//evil.example")
    if way == "another browser":
        client.cookies.clear()
    elif way == "twice":
        assert client.get(back, follow_redirects=False).headers["location"] == "/"
        client.cookies.delete(COOKIE)
    elif way == "changed state":
        back = back.replace("state=", "state=x")
    elif way == "no code":
        back = back.replace("code=", "other=")
    answer = client.get(back, follow_redirects=False)
    assert answer.status_code == 401 and "did not let you in" in answer.text
    assert client.get("/info/").status_code == 401


def test_tokens_of_the_provider_are_not_shown(issuer, client):
    client.get(sent_back(client, "ada"), follow_redirects=False)
    page = client.get("/").text
    assert "eyJ" not in page and "eyJ" not in str(client.cookies.jar)
