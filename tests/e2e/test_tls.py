"""`slicecast serve --tls-cert --log-format json`: a client that trusts the authority, and a log that programs read."""

import json
import ssl

import httpx
import pytest
import trustme

from slicecast.cli._connection import examine_server
from slicecast.demo.server_process import free_port, serving
from slicecast.server.security.users import Users

pytestmark = pytest.mark.slow


def test_https_with_a_login_and_a_log_of_objects(tmp_path, monkeypatch):
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    for pem, name in ((authority.cert_pem, "ca"), (issued.cert_chain_pems[0], "cert"), (issued.private_key_pem, "key")):
        pem.write_to_path(str(tmp_path / f"{name}.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SLICECAST_USERS", str(tmp_path / "users.json"))
    token = Users(tmp_path / "users.json").add("anna", role="admin")
    (tmp_path / "scans").mkdir()
    port = free_port()
    options = ["--tls-cert", tmp_path / "cert.pem", "--tls-key", tmp_path / "key.pem", "--log-format", "json"]
    with (
        serving(
            tmp_path / "scans", log=tmp_path / "out.txt", port=port, options=list(map(str, options)), scheme="https"
        ),
        httpx.Client(base_url=f"https://localhost:{port}", verify=ssl.create_default_context()) as client,
    ):
        answer = client.post("/login", data={"username": "anna", "password": token})
        assert answer.status_code == 303 and "; secure" in answer.headers["set-cookie"].lower()
        assert client.get("/info/").status_code == 200
        seen = {
            name: (fine, found) for name, fine, found, _ in examine_server(str(client.base_url), "anna", lambda: token)
        }
        assert all(fine for fine, _ in seen.values()) and {"login", "model", "memory", "disk", "size"} <= seen.keys()
        assert seen["model"][1].startswith("sam2_nano on ")
        monkeypatch.delenv("SSL_CERT_FILE")
        *_, (name, fine, _, remedy) = examine_server(str(client.base_url), "anna", lambda: token)
        assert (name, fine) == ("connection", False) and "the certificate does not count here" in remedy
    lines = (tmp_path / "scans" / ".slicecast" / "app" / "logs" / "app.log").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    assert any("is ready" in entry["message"] for entry in entries)
    assert {"timestamp", "level", "logger", "message"} <= entries[0].keys()
