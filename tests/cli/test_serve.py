"""`slicecast serve` says what would stop it before it starts, and starts MONAI Label's server otherwise."""

import json
import socket
from pathlib import Path

import pytest
import trustme
from labelserver import another_server
from typer.testing import CliRunner

import slicecast
from slicecast.cli import serve
from slicecast.demo.server_process import free_port
from slicecast.errors import ConfigError, ResourceError, UnknownModel
from slicecast.server.security.users import Users


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What MONAI Label's command line would have been given."""
    calls: list[list[str]] = []
    monkeypatch.setattr(serve, "start_monailabel", lambda words, **_: calls.append(words))
    return calls


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Studies and an app."""
    app, studies = tmp_path / "app", tmp_path / "data" / "studies"
    app.mkdir()
    studies.mkdir(parents=True)
    (app / "main.py").write_text("")
    return studies, app


def run(folders, *options: str | Path):
    studies, app = folders
    command = ["--studies", str(studies), "--app", str(app), "--port", str(free_port()), *map(str, options)]
    return CliRunner().invoke(serve.app, command, catch_exceptions=False)


def test_it_listens_on_this_machine_only(started, folders):
    output = run(folders).output
    words = started[0]
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert words[words.index("--uvicorn_app") + 1] == "slicecast.server.app:app"
    assert "--conf" not in words
    assert f"http://127.0.0.1:{words[words.index('--port') + 1]}" in output and "3D Slicer" in output


def test_settings_reach_the_app(started, folders):
    run(
        folders,
        "--model",
        "sam2_nano",
        "--labels",
        "spleen,liver",
        "--conf",
        "device=cpu",
        "--conf",
        "follow_links=true",
    )
    words = started[0]
    pairs = {words[n + 1]: words[n + 2] for n, word in enumerate(words) if word == "--conf"}
    assert pairs == {"model": "sam2_nano", "labels": "spleen,liver", "device": "cpu", "follow_links": "true"}


@pytest.mark.parametrize("place", ["..", "."])
@pytest.mark.parametrize(
    "labels", [{"background": 0, "spleen": 1, "liver": 2}, {"0": "background", "1": "spleen", "2": "liver"}]
)
def test_labels_of_a_described_data_set(started, folders, place, labels):
    (folders[0] / place / "dataset.json").write_text(json.dumps({"labels": labels}))
    run(folders)
    assert started[0][-2:] == ["labels", "spleen,liver"]


@pytest.mark.parametrize(
    ("labels", "named"),
    [
        ({"liver": 2, "spleen": 1}, "spleen,liver"),
        ({"1": "core", "2": "edema", "4": "enhancing", "999": "x"}, "core,edema,label 3,enhancing"),
    ],
)
def test_labels_of_a_described_data_set_keep_their_values(started, folders, labels, named):
    (folders[0] / "dataset.json").write_text(json.dumps({"labels": labels}))
    run(folders)
    assert started[0][-2:] == ["labels", named]


def test_labels_that_are_given_as_a_setting_count(started, folders):
    (folders[0] / "dataset.json").write_text(json.dumps({"labels": {"1": "spleen"}}))
    run(folders, "--conf", "labels=liver")
    assert started[0].count("labels") == 1 and started[0][-1] == "liver"


def test_a_described_name_with_a_comma_is_said(started, folders):
    (folders[0] / "dataset.json").write_text(json.dumps({"labels": {"1": "kidney, left"}}))
    with pytest.raises(ConfigError, match=r"'kidney, left'.*--labels"):
        run(folders)
    assert started == []


@pytest.mark.parametrize("content", ["{bad", "[]", '{"labels": ["spleen"]}', "{}"])
def test_other_files_of_that_name_are_ignored(started, folders, content):
    (folders[0] / "dataset.json").write_text(content)
    run(folders)
    assert "labels" not in started[0]


def test_ohif_is_named_whatever_the_studies_are(started, folders):
    assert "/ohif/" in run(folders).output
    port = str(free_port())
    command = ["--studies", "http://pacs/dicom-web", "--app", str(folders[1]), "--port", port]
    assert f"http://127.0.0.1:{port}/ohif/" in CliRunner().invoke(serve.app, command, catch_exceptions=False).output


def test_missing_folders(started, folders, tmp_path):
    with pytest.raises(ConfigError, match=r"There is no folder .*nowhere"):
        run((tmp_path / "nowhere", folders[1]))
    with pytest.raises(ConfigError, match="There is no app in"):
        run((folders[0], tmp_path))
    assert started == []


def test_folders_that_cannot_be_written_to(monkeypatch, folders):
    monkeypatch.setattr(serve.os, "access", lambda folder, _: folder != folders[1])
    with pytest.raises(ResourceError, match=r"app cannot be written to.* given with --app"):
        serve.check_folders(str(folders[0]), folders[1])
    monkeypatch.setattr(serve.os, "access", lambda folder, _: folder != folders[0])
    with pytest.raises(ResourceError, match=r"studies cannot be written to, but labels are saved there"):
        serve.check_folders(str(folders[0]), folders[1])


def test_a_port_in_use():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ResourceError, match="Choose another one with --port"):
            serve.check_port("127.0.0.1", other.getsockname()[1])


def test_a_setting_without_value(started, folders):
    with pytest.raises(ConfigError, match="--conf device has no value"):
        run(folders, "--conf", "device")


def test_an_unknown_model(started, folders):
    with pytest.raises(UnknownModel, match="sam9"):
        run(folders, "--model", "sam9")
    assert started == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.5", "station7"])
def test_opening_the_server_needs_logins(started, folders, host, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"without any login. Add yourself with `slicecast users add"):
        serve.check_logins(host, insecure=False)
    serve.check_logins(host, insecure=True)
    monkeypatch.setenv("SLICECAST_USERS", str(tmp_path / "users.json"))
    Users(tmp_path / "users.json").add("anna", role="admin")
    serve.check_logins(host, insecure=False)


def test_insecure_is_said_to_the_server(started, folders):
    run(folders, "--host", "0.0.0.0", "--insecure")
    assert started[0][-3:] == ["--conf", "insecure", "true"]
    with pytest.raises(ConfigError):
        run(folders, "--host", "0.0.0.0")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_this_machine_needs_none(host):
    serve.check_logins(host, insecure=False)


def test_a_second_server_on_the_same_studies_does_not_start(started, folders):
    with (
        another_server(folders[0]),
        pytest.raises(ResourceError, match=r"Another server runs on .*studies\. Stop it first"),
    ):
        run(folders)
    assert not started
    assert run(folders).exit_code == 0 and started


def test_without_an_app_of_its_own_everything_lies_in_the_studies(started, tmp_path):
    """So a run leaves nothing in the checkout, and two servers of one checkout are apart."""
    (tmp_path / "studies").mkdir()
    command = ["--studies", str(tmp_path / "studies"), "--port", str(free_port())]
    assert CliRunner().invoke(serve.app, command, catch_exceptions=False).exit_code == 0
    app = Path(started[0][started[0].index("--app") + 1])
    assert app == tmp_path / "studies" / ".slicecast" / "app" and (app / "main.py").is_file()


@pytest.mark.parametrize(
    ("options", "reached"),
    [([], "programs of this machine, without a login"), (["--insecure"], "everybody who reaches it, without a login")],
)
def test_it_says_what_matters(started, folders, monkeypatch, options, reached):
    monkeypatch.setattr(serve, "own_address", lambda: "192.168.7.7")
    output = run(folders, *(["--host", "0.0.0.0", *options] if options else [])).output
    assert len(output.splitlines()) <= 9  # and "Ready."
    log = str(folders[1] / "logs" / "app.log")
    for word in (slicecast.__version__, str(folders[0]), "sam2_nano on ", reached, log):
        assert word in output
    assert ("http://192.168.7.7:" in output) == bool(options)


@pytest.fixture
def certificate(tmp_path):
    issued = trustme.CA().issue_cert("localhost")
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    return tmp_path


def test_a_certificate_and_its_key_give_https(started, folders, certificate):
    output = run(folders, "--tls-cert", certificate / "cert.pem", "--tls-key", certificate / "key.pem").output
    assert "https://127.0.0.1:" in output and "http://" not in output
    assert started[0][started[0].index("--ssl_certfile") + 1] == str(certificate / "cert.pem")


@pytest.mark.parametrize(
    ("cert", "key", "why"),
    [("cert.pem", None, "needs both files"), ("none.pem", "key.pem", "No such file"), ("cert.pem", "cert.pem", "PEM")],
)
def test_a_certificate_that_cannot_be_used_is_said_before_the_start(started, folders, certificate, cert, key, why):
    with pytest.raises(ConfigError, match=why):
        run(folders, "--tls-cert", certificate / cert, *(["--tls-key", certificate / key] if key else []))
    assert not started
