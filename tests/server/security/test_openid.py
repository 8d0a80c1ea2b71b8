"""Tokens of an OpenID provider that runs: found by discovery, signed by its keys, roles from claims."""

import warnings
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from labelserver import TestClient, app_settings, copy_app, write_studies

from slicecast.server.app import create_app
from slicecast.server.settings import AuthSettings, server_settings

pytestmark = pytest.mark.filterwarnings("ignore")  # of the provider, which warns of its own library's past

ROLES = {"ada": ["monailabel-reviewer", "other"], "ben": ["other"], "cleo": ["monailabel-admin"]}


@pytest.fixture(scope="module")
def issuer():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mock = pytest.importorskip("oidc_provider_mock")
    people = [
        mock.User(sub=name, claims={"preferred_username": name, "realm_access": {"roles": roles}})
        for name, roles in ROLES.items()
    ]
    with mock.run_server_in_thread(user_claims=people) as server:
        yield f"http://localhost:{server.server_port}"


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
    settings = replace(server_settings(), auth=AuthSettings(oidc_issuer=issuer, oidc_audience="slicecast"))
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
