"""Who gets in: the whole application, with users, without, from elsewhere, and for pages of other sites."""

import socket
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from labelserver import TestClient, app_settings, copy_app, write_studies
from starlette.requests import HTTPConnection
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from slicecast.config import project_dir
from slicecast.server.app import create_app
from slicecast.server.security.gate import PUBLIC, caller_of, host_name, is_own_host, is_this_machine, needed
from slicecast.server.security.logins import COOKIE
from slicecast.server.security.users import Role, Users
from slicecast.server.settings import AuthSettings, server_settings


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Studies, an app, and a users' file."""
    folder = tmp_path_factory.mktemp("gate")
    write_studies(folder / "studies")
    copy_app(folder / "app")
    return folder


@pytest.fixture(scope="module")
def tokens(place: Path) -> dict[str, str]:
    """The token of a user of each role."""
    users = Users(place / "users.json")
    return {role: users.add(f"{role}-1", role=role) for role in ("annotator", "reviewer", "admin")}


def serve(place: Path, monkeypatch: pytest.MonkeyPatch, *, users: bool, conf: dict[str, str] | None = None, **more):
    """The application's settings, as a context."""
    monkeypatch.setenv("SLICECAST_USERS", str(place / ("users.json" if users else "none.json")))
    return app_settings(place / "app", place / "studies", conf, **{"MONAI_LABEL_AUTH_ENABLE": False, **more})


@pytest.fixture(scope="module")
def closed(place: Path, tokens):
    """The application where users must log in, as (method, path, token=..., **more) -> response."""
    with (
        pytest.MonkeyPatch.context() as patch,
        serve(place, patch, users=True),
        TestClient(create_app(), raise_server_exceptions=False, follow_redirects=False) as client,
    ):
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("path", ["/", "/info/", "/datastore/?output=all", "/ohif/", "/openapi.json", "/metrics",
                                  "/campaign/", "/static/favicon.ico", "/nothing", "/slicecast/sessions"])  # fmt: skip
def test_nothing_without_a_login(closed, path):
    response = closed.get(path)
    assert response.status_code == 401 and "Log in first" in response.json()["detail"]
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "ä", "'; drop", "x" * 5000])
def test_wrong_tokens(closed, token):
    assert closed.get("/info/", headers={"Authorization": f"Bearer {token}".encode()}).status_code == 401
    assert closed.get("/info/", headers={"Cookie": f"{COOKIE}={token}".encode()}).status_code == 401


def test_the_server_says_that_it_is_alive_and_how_to_get_in(closed):
    assert closed.get("/healthz").status_code == 200
    assert closed.get("/auth/").json()["enabled"] is True


def leads_to_paragraph(answer):
    """Whether a refusal leads to the paragraph of its status in docs/errors.md."""
    paragraphs = (project_dir("docs") / "errors.md").read_text(encoding="utf-8")
    place = f'</manual/errors/#{answer.status_code}>; rel="help"'
    return answer.headers["link"] == place and f"\n### {answer.status_code}\n" in paragraphs


def test_every_refusal_leads_to_its_paragraph_which_needs_no_login(closed, tokens):
    refused = [
        closed.get("/info/"),
        closed.get("/info/", headers=bearer("wrong")),
        closed.post("/auth/token", data={"username": "annotator-1", "password": "x", "grant_type": "password"}),
        closed.get("/logs/", headers=bearer(tokens["annotator"])),
        closed.post("/infer/sam2", headers={**bearer(tokens["admin"]), "Origin": "http://evil.example"}),
        closed.get("/nothing", headers=bearer(tokens["admin"])),
        closed.patch("/info/", headers=bearer(tokens["admin"])),
        closed.post("/slicecast/sessions", headers=bearer(tokens["admin"]), content="{", params={"x": 1}),
    ]
    assert [answer.status_code for answer in refused] == [401, 401, 401, 403, 403, 404, 405, 422]
    assert all(leads_to_paragraph(answer) for answer in refused)
    assert closed.get("/manual/errors/").status_code in (200, 404)  # 404 where it was not built


LADDER = [
    ("GET", "/info/", "annotator"),
    ("POST", "/activelearning/first", "annotator"),
    ("GET", "/datastore/dataset", "reviewer"),
    ("PUT", "/datastore/image/info?image=first", "reviewer"),
    ("DELETE", "/datastore/label?id=first&tag=nothing", "admin"),
    ("GET", "/logs/?lines=1", "admin"),
    ("DELETE", "/train/", "admin"),
    ("GET", "/model/info/sam2", "admin"),
    ("DELETE", "/datastore/image?id=nothing", "admin"),
]


@pytest.mark.parametrize(("method", "path", "least"), LADDER)
def test_each_role_may_do_what_it_may(closed, tokens, method, path, least):
    roles = list(tokens)
    for role in roles:
        answer = closed.request(method, path, headers=bearer(tokens[role]), json={} if method == "POST" else None)
        if roles.index(role) < roles.index(least):
            assert answer.status_code == 403 and f"the role {least}" in answer.json()["detail"]
        else:
            assert answer.status_code not in (401, 403, 500), answer.text


@pytest.mark.parametrize("action", ["approve", "reject", "reopen"])
def test_only_reviewers_judge(closed, tokens, action):
    for role, status in (("annotator", 403), ("reviewer", 409)):  # 409: there is no label to judge
        headers = {**bearer(tokens[role]), "X-Requested-With": "slicecast"}
        answer = closed.post(f"/campaign/case/first/{action}", json={"why": "x"}, headers=headers)
        assert answer.status_code == status, answer.text


def test_slicers_login(closed, tokens):
    """What MONAI Label's client does: a password grant, then the header with what came back."""
    asked = {"username": "annotator-1", "password": tokens["annotator"], "grant_type": "password"}
    token = closed.post("/auth/token", data=asked).json()
    header = {"Authorization": f"{token['token_type']} {token['access_token']}"}
    assert token["access_token"] != tokens["annotator"] and token["expires_in"] > 3600
    assert closed.get("/auth/token/valid", headers=header).json()["username"] == "annotator-1"
    assert closed.get("/info/", headers=header).status_code == 200


def test_a_browser_logs_in_on_the_page_and_comes_back(closed, tokens):
    first = closed.get("/ohif/?x=1", headers={"Accept": "text/html"})
    assert (first.status_code, first.headers["location"]) == (303, "/login?next=%2Fohif%2F%3Fx%3D1")
    page = closed.get(first.headers["location"])
    assert closed.get("/assets/slicecast.css").status_code == 200  # so that it looks like the others
    assert 'value="/ohif/?x=1"' in page.text and "frame-ancestors" in page.headers["content-security-policy"]
    form = {"username": "reviewer-1", "password": "wrong", "next": "/ohif/?x=1"}
    wrong = closed.post("/login", data=form)
    assert wrong.status_code == 401 and "do not belong together" in wrong.text and COOKIE not in wrong.cookies
    right = closed.post("/login", data={**form, "password": tokens["reviewer"]})
    assert (right.status_code, right.headers["location"]) == (303, "/ohif/?x=1")
    cookie = right.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and tokens["reviewer"] not in cookie
    assert closed.get("/info/").status_code == 200  # the client holds the cookie
    assert closed.get("/ohif/").status_code == 200
    assert closed.post("/logout").headers["location"] == "/login"
    assert closed.get("/info/").status_code == 401


@pytest.mark.parametrize(
    "wanted", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "/a\nb"]
)
def test_a_login_leads_nowhere_else(closed, tokens, wanted):
    form = {"username": "admin-1", "password": tokens["admin"], "next": wanted}
    assert closed.post("/login", data=form).headers["location"] == "/"
    closed.cookies.clear()
    assert "<script>" not in closed.get("/login", params={"next": '"><script>alert(1)</script>'}).text


def test_wrong_logins_are_slowed_down_whoever_tries(closed, tokens):
    form = {"username": "nobody-at-all", "password": "guess"}
    answers = [closed.post("/auth/token", data=form).status_code for _ in range(6)]
    assert answers == [401] * 5 + [429]
    last = closed.post("/auth/token", data=form)
    assert int(last.headers["retry-after"]) > 0 and "Too many wrong logins" in last.json()["detail"]


def test_what_is_kept_carries_the_name_of_who_sent_it(closed, tokens):
    saved = closed.put("/datastore/image/info?image=first", data={"info": "{}"}, headers=bearer(tokens["reviewer"]))
    assert saved.status_code == 200, saved.text
    objects = closed.get("/datastore/?output=all", headers=bearer(tokens["annotator"])).json()["objects"]
    assert objects["first"]["image"]["info"]["user"] == "reviewer-1"


def test_a_removed_user_is_out_at_once(closed, place):
    users = Users(place / "users.json")
    token = users.add("short", role="admin")
    login = closed.post("/auth/token", data={"username": "short", "password": token}).json()["access_token"]
    assert closed.get("/info/", headers=bearer(login)).status_code == 200
    users.remove("short")
    assert [closed.get("/info/", headers=bearer(key)).status_code for key in (login, token)] == [401, 401]


def test_no_token_in_the_logs(closed, tokens, caplog):
    caplog.set_level("DEBUG")
    closed.post("/auth/token", data={"username": "admin-1", "password": tokens["admin"]})
    closed.get("/info/", headers=bearer(tokens["admin"]))
    assert tokens["admin"] not in caplog.text


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({"Origin": "https://evil.example"}, True),
        ({"Origin": "null"}, True),
        ({"Origin": "http://localhost.evil.example"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, True),
        ({"Origin": "http://localhost"}, False),
        ({"Sec-Fetch-Site": "same-origin"}, False),
        ({}, False),
    ],
)
def test_pages_of_other_sites_cannot_act(closed, tokens, headers, refused):
    answer = closed.post("/activelearning/first", json={}, headers={**bearer(tokens["admin"]), **headers})
    assert answer.status_code == (403 if refused else 200), answer.text


def test_headers_of_every_answer(closed):
    for path in ("/healthz", "/info/", "/login"):
        headers = closed.get(path).headers
        assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "SAMEORIGIN"


@pytest.fixture
def open_app(place, monkeypatch):
    """The application where nobody logs in."""
    with serve(place, monkeypatch, users=False):
        yield create_app()


@pytest.mark.parametrize(("client", "host", "status"), [
    (("127.0.0.1", 1), "127.0.0.1:8000", 200),
    (("127.0.0.1", 1), "localhost:8000", 200),
    (("127.0.0.1", 1), "rebound.evil.example:8000", 403),
    (("192.168.0.7", 1), "192.168.0.5:8000", 403),
    (("::1", 1), "[::1]:8000", 200),
])  # fmt: skip
def test_without_logins_only_this_machine_is_answered(open_app, client, host, status):
    with TestClient(open_app, client=client, headers={"Host": host}) as requests:
        answer = requests.get("/info/")
        assert answer.status_code == status
        assert status == 200 or ("detail" in answer.json() and leads_to_paragraph(answer))
        assert requests.get("/auth/").json().get("enabled") in (False, None)


@pytest.mark.parametrize("believing", [False, True], ids=["serve", "uvicorn believes loopback"])
@pytest.mark.parametrize(("client", "headers"), [
    ("127.0.0.1", {"X-Forwarded-For": "x", "Host": "evil.example", "Origin": "http://evil.example"}),
    ("127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}),
    ("127.0.0.1", {"X-Forwarded-For": "10.0.0.9"}),
    ("127.0.0.1", {"Forwarded": "for=127.0.0.1"}),
    ("127.0.0.1", {"Host": "evil.example", "Origin": "http://evil.example"}),
    ("127.0.0.1", {"Host": ""}),
    ("x", {}),
    ("", {}),
])  # fmt: skip
def test_nobody_is_this_machine_by_saying_so(open_app, client, headers, believing):
    app = ProxyHeadersMiddleware(open_app, "127.0.0.1") if believing else open_app
    with TestClient(app, client=(client, 1)) as requests:
        assert requests.delete("/datastore/?id=first", headers=headers).status_code == 403
        assert requests.get("/info/", headers=headers).status_code == 403


def test_a_named_proxy_is_believed(place, monkeypatch):
    settings = replace(server_settings(), auth=AuthSettings(proxies=("10.1.0.0/16",)))
    monkeypatch.setattr("slicecast.server.app.server_settings", lambda: settings)
    with serve(place, monkeypatch, users=False), TestClient(create_app(), client=("10.1.2.3", 1)) as client:
        assert client.get("/info/", headers={"X-Forwarded-For": "127.0.0.1"}).status_code == 200
        for value in ("10.0.0.9", "x", "127.0.0.1, 10.0.0.9", ""):
            assert client.get("/info/", headers={"X-Forwarded-For": value}).status_code == 403
    with serve(place, monkeypatch, users=False), TestClient(create_app(), client=("10.2.2.3", 1)) as client:
        assert client.get("/info/", headers={"X-Forwarded-For": "127.0.0.1"}).status_code == 403


def test_prometheus_needs_no_login_at_an_address_that_is_named(place, monkeypatch, tokens):
    settings = replace(server_settings(), auth=AuthSettings(metrics=("10.1.0.7", "10.2.0.0/16"), proxies=("10.2.0.1",)))
    monkeypatch.setattr("slicecast.server.app.server_settings", lambda: settings)
    with serve(place, monkeypatch, users=True):
        app = create_app()
        told = {"X-Forwarded-For": "10.1.0.7"}
        for address, headers, status in (
            ("10.1.0.7", {}, 200),
            ("10.2.9.9", {}, 200),
            ("10.1.0.8", {}, 401),
            ("10.1.0.7", told, 401),  # a proxy that nobody named
            ("10.2.0.1", {"X-Forwarded-For": "10.9.9.9"}, 401),
        ):
            with TestClient(app, client=(address, 1)) as client:
                assert client.get("/metrics", headers=headers).status_code == status, (address, headers)
                assert client.get("/info/", headers=headers).status_code == 401


def test_insecure_answers_everybody(place, monkeypatch):
    with (
        serve(place, monkeypatch, users=False, conf={"insecure": "true"}),
        TestClient(create_app(), client=("192.168.0.7", 1)) as client,
    ):
        assert client.get("/info/").status_code == 200
        assert client.get("/info/", headers={"Host": f"{socket.gethostname()}:8000"}).status_code == 200
        assert client.get("/info/", headers={"Host": "rebound.evil.example"}).status_code == 403
        assert client.post("/activelearning/first", json={}, headers={"Origin": "http://e.example"}).status_code == 403


def test_other_sites_that_were_named_may_ask(place, monkeypatch, tokens):
    origin = {"Origin": "https://viewer.example"}
    with (
        serve(place, monkeypatch, users=True, MONAI_LABEL_CORS_ORIGINS=["https://viewer.example"]),
        TestClient(create_app(), raise_server_exceptions=False) as client,
    ):
        routes = client.app.openapi()["paths"].values()
        for method in {method.upper() for route in routes for method in route}:
            preflight = client.options("/info/", headers={**origin, "Access-Control-Request-Method": method})
            assert (preflight.status_code, preflight.text) == (200, "OK"), method
            assert preflight.headers["access-control-allow-origin"] == "https://viewer.example"
        answer = client.post("/activelearning/first", json={}, headers={**origin, **bearer(tokens["annotator"])})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://viewer.example"


def test_a_damaged_users_file_lets_nobody_in(closed, tokens, place):
    file = place / "users.json"
    before = file.read_bytes()
    try:
        file.write_text("{")
        answer = closed.get("/info/", headers=bearer(tokens["admin"]))
        assert answer.status_code == 503 and "cannot be used" in answer.json()["detail"]
        file.unlink()
        assert closed.get("/info/", headers=bearer(tokens["admin"])).status_code == 401
    finally:
        file.write_bytes(before)
        file.chmod(0o600)


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("GET", "/healthz", None),
        ("POST", "/auth/token", None),
        ("GET", "/auth/token/valid", Role.annotator),
        ("GET", "/info/", Role.annotator),
        ("GET", "/a/route/that/nobody/thought/of", Role.annotator),
        ("POST", "/infer/sam2", Role.annotator),
        ("PUT", "/datastore/label", Role.annotator),
        ("GET", "/datastore/dataset", Role.reviewer),
        ("PUT", "/datastore/image/info", Role.reviewer),
        ("DELETE", "/datastore/", Role.admin),
        ("DELETE", "/datastore/label", Role.admin),
        ("GET", "/train/", Role.annotator),
        ("POST", "/train/sam2", Role.admin),
        ("POST", "/batch/infer/sam2", Role.admin),
        ("GET", "/logs", Role.admin),
        ("GET", "/logs/gpu", Role.admin),
        ("GET", "/model/info/sam2", Role.admin),
        ("PUT", "/model/sam2", Role.admin),
        ("POST", "/reload", Role.admin),
        ("GET", "/healthz/", Role.annotator),
    ],
)
def test_needed(method, path, role):
    assert needed(method, path) == role


def test_nothing_public_shows_studies():
    public = {path.strip("/").split("/")[0] for path in PUBLIC}
    assert public == {"healthz", "login", "logout", "favicon.ico", "auth", "assets"}


def connection(*headers, state=None):
    raw = [(name.encode(), value.encode()) for name, value in headers]
    scope = {"type": "http", "headers": raw, "client": ("10.0.0.7", 1), "state": state or {}}
    return HTTPConnection(scope)


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ((), None),
        ((("cookie", "slicecast_user=Anna%20B"),), "Anna B"),
        ((("cookie", "slicecast_user=Anna"), ("x-slicecast-user", "Bob")), "Bob"),
        ((("x-slicecast-user", "  "),), None),
    ],
)
def test_what_a_client_calls_itself(headers, name):
    caller = caller_of(connection(*headers))
    assert (caller.name, caller.address, caller.roles) == (name, "10.0.0.7", None)


def test_a_login_counts_first():
    caller = caller_of(connection(("x-slicecast-user", "eve"), state={"user": "ann", "roles": {"annotator"}}))
    assert caller.called("mallory") == "ann" and not caller.may("reviewer") and caller.may("annotator")
    assert caller.roles == frozenset({"annotator"})


def test_a_right_user_elsewhere_is_not_locked_out_by_wrong_logins(closed, tokens):
    form = {"username": "annotator-1", "password": "guess"}
    attacker = TestClient(closed.app, client=("192.0.2.7", 40000))
    assert [attacker.post("/auth/token", data=form).status_code for _ in range(6)] == [401] * 5 + [429]
    other = {"username": "reviewer-1", "password": tokens["reviewer"]}
    assert attacker.post("/auth/token", data=other).status_code == 200
    assert closed.post("/auth/token", data={**form, "password": tokens["annotator"]}).status_code == 200


def test_the_start_page_links_to_the_logout(closed, tokens):
    closed.post("/login", data={"username": "admin-1", "password": tokens["admin"]})
    assert "You are admin-1" in (page := closed.get("/").text) and 'href="/logout"' in page
    assert 'href="/logout"' in closed.get("/campaign/").text
    elsewhere = closed.get("/logout", headers={"sec-fetch-site": "cross-site"})
    assert elsewhere.headers["location"] == "/" and closed.get("/info/").status_code == 200
    assert closed.get("/logout").headers["location"] == "/login"
    assert closed.get("/info/").status_code == 401


def test_upload_sessions_belong_to_who_sent_them(closed, tokens, place):
    files = {"files": ("scan.nii.gz", (place / "studies" / "first.nii.gz").read_bytes())}
    made = closed.put("/session/", files=files, headers=bearer(tokens["annotator"])).json()
    assert UUID(made["session_id"]).version == 4
    address, query = f"/session/{made['session_id']}", {"session_id": made["session_id"]}
    form = {"params": (None, '{"foreground": [[12, 10, 8]]}')}
    for role, status in (("reviewer", 404), ("annotator", 200), ("admin", 200)):
        assert closed.get(address, headers=bearer(tokens[role])).status_code == status
    stolen = closed.post("/infer/sam2_single", params=query, files=form, headers=bearer(tokens["reviewer"]))
    assert stolen.status_code >= 400
    assert closed.delete(address, headers=bearer(tokens["reviewer"])).status_code == 404
    assert closed.delete(address, headers=bearer(tokens["annotator"])).status_code == 200


@pytest.mark.parametrize("client", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_this_machine(client):
    assert is_this_machine(client)


@pytest.mark.parametrize(
    "client", ["10.0.0.1", "192.168.1.5", "::ffff:10.0.0.1", "fe80::1%eth0", "2001:db8::1", "testclient", None, ""]
)
def test_other_machines(client):
    assert not is_this_machine(client)


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1:8000", True),
        ("localhost", True),
        ("LOCALHOST:8000", True),
        ("slicecast.localhost:1", True),
        ("[::1]:8000", True),
        ("10.0.0.5:8000", True),
        ("station7:8000", True),
        ("evil.example:8000", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("", False),
    ],
)
def test_names_of_a_server_without_logins(host, own):
    assert is_own_host(host, ("station7",)) is own


def test_host_names():
    assert [host_name(host) for host in ("A:1", "[::1]:8000", "b")] == ["a", "::1", "b"]
