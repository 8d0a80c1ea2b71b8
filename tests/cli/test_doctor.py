import http.server
import json
import socket
import threading
from contextlib import contextmanager

import pytest
from labelserver import write_studies
from packaging.requirements import Requirement
from typer.testing import CliRunner

from slicecast.cli import doctor
from slicecast.cli.doctor import CheckStatus
from slicecast.errors import NotFound


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A cache folder of the test's own, and no model chosen by the environment."""
    monkeypatch.setenv("SLICECAST_HOME", str(tmp_path))
    monkeypatch.delenv("SLICECAST_MODEL", raising=False)
    return tmp_path


def test_report_as_json_covers_what_a_bug_report_needs():
    result = CliRunner().invoke(doctor.app, ["--json"])
    names = {check["name"] for check in json.loads(result.stdout)}
    wanted = {"python", "torch", "monailabel", "torch with torchvision", "device", "weights", "sample data", "Orthanc"}
    assert names >= wanted


def test_report_for_people_names_the_remedy_and_fails_when_something_needed_is_missing():
    result = CliRunner().invoke(doctor.app, ["--model", "sam2.1_hiera_tiny"], env={"COLUMNS": "200"})
    assert result.exit_code == 1
    assert "slicecast models pull sam2.1_hiera_tiny" in " ".join(result.stdout.split())


def test_this_environment_is_sound():
    assert [check for check in doctor.check_packages() if check.status is CheckStatus.FAIL] == []
    assert doctor.check_torch_pair().status is CheckStatus.OK
    assert doctor.check_device().status is CheckStatus.OK


@pytest.mark.parametrize(
    ("version", "status"),
    [
        ((3, 10, 9), CheckStatus.FAIL),
        ((3, 11, 0), CheckStatus.OK),
        ((3, 12, 4), CheckStatus.OK),
        ((3, 13, 0), CheckStatus.FAIL),
    ],
)
def test_python(version, status):
    check = doctor.check_python(version)
    assert check.status is status and bool(check.remedy) == (status is CheckStatus.FAIL)


def test_a_package_out_of_range_is_named_with_the_range():
    check = doctor.check_package(Requirement("pytest<1"))
    assert check.status is CheckStatus.FAIL and "pytest<1 is needed" in check.found and check.remedy == "make install"


def test_a_missing_package_is_named():
    check = doctor.check_package(Requirement("no-such-package>=2"))
    assert check.status is CheckStatus.FAIL and "not installed" in check.found


def test_missing_weights_fail_with_the_command_that_gets_them():
    check = doctor.check_weights("sam2.1_hiera_tiny")
    assert check.status is CheckStatus.FAIL and "slicecast models pull sam2.1_hiera_tiny" in check.found


def test_without_a_gpu_the_smaller_input_is_advised(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (advice,) = doctor.check_size("sam2.1_hiera_tiny")
    assert advice.status is CheckStatus.NOTE and advice.remedy == "slicecast serve --model sam2.1_hiera_tiny_512"
    assert not [
        *doctor.check_size("sam2_nano"),
        *doctor.check_size("sam2.1_hiera_tiny_512"),
        *doctor.check_size("sam9"),
    ]
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert not list(doctor.check_size("sam2.1_hiera_tiny"))


def test_an_unknown_model_fails_the_check_and_not_the_command():
    assert doctor.check_weights("sam9").status is CheckStatus.FAIL


def test_an_empty_folder_of_studies_is_a_note(tmp_path):
    assert doctor.check_folder("sample data", tmp_path).status is CheckStatus.NOTE
    (tmp_path / "scan.nii.gz").touch()
    assert doctor.check_folder("sample data", tmp_path).status is CheckStatus.OK


def test_a_folder_that_does_not_exist_yet_is_judged_by_the_one_above(tmp_path, monkeypatch):
    assert doctor.check_writable("weights folder", tmp_path / "a" / "b").status is CheckStatus.OK
    monkeypatch.setattr("os.access", lambda path, mode: False)  # a superuser may write everywhere
    check = doctor.check_writable("weights folder", tmp_path / "a" / "b")
    assert check.status is CheckStatus.FAIL and check.remedy == f"chmod u+w {tmp_path}"


def test_an_optional_program_is_a_note_with_its_purpose():
    check = doctor.check_program("Orthanc", which=lambda name: None)
    assert check.status is CheckStatus.NOTE and "OHIF" in check.found and "apt-get install" in check.remedy
    assert doctor.check_program("Orthanc", which=lambda name: "/opt/Orthanc").found == "/opt/Orthanc"


def test_images_that_cannot_be_segmented_are_listed_with_their_reasons(tmp_path):
    write_studies(tmp_path / "studies", ("good",))
    (tmp_path / "studies" / "empty.nii.gz").touch()
    (tmp_path / "studies" / "below").mkdir()
    write_studies(tmp_path / "studies" / "below")
    before = sorted(tmp_path.rglob("*"))
    first, *notes = doctor.check_studies(tmp_path / "studies")
    assert first.status is CheckStatus.OK and first.found.startswith("1 images")
    assert {check.name for check in notes} == {"empty", "below/"} and "0 bytes" in notes[0].found
    assert all(check.status is CheckStatus.NOTE for check in notes) and sorted(tmp_path.rglob("*")) == before
    with pytest.raises(NotFound, match="There is no folder"):
        CliRunner().invoke(doctor.app, ["--studies", str(tmp_path / "none")], catch_exceptions=False)


@contextmanager
def answering(answers):
    """Serve fixed answers by path; /auth/token gives the token of `lee`, which /info/ then wants."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            code, body = answers.get(self.path, (404, {}))
            if code == 401 and self.headers["Authorization"] == "Bearer good":
                code, body = 200, {"models": {"sam2": {}}}
            self.say(code, body)

        def do_POST(self):
            form = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path != "/auth/token":
                self.say(*answers.get("POST", (413, {"detail": "Send less."})))
                return
            good = form == b"username=lee&password=secret"
            self.say(*((200, {"access_token": "good"}) if good else (401, {"detail": "They do not belong together."})))

        def say(self, code, body):
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Content-Type", "text/html" if isinstance(body, bytes) else "application/json")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def checked(url):
    result = CliRunner().invoke(doctor.app, ["--json", "--server", url])
    return {check["name"]: check for check in json.loads(result.stdout)}


def reached(*words, token=""):
    result = CliRunner().invoke(doctor.app, ["--json", "--server", *words], input=f"{token}\n")
    checks = json.loads(result.stdout[result.stdout.index("[") :])
    last = checks[-1]
    assert (result.exit_code == 1) == (last["status"] == "fail")
    return last["name"], last["status"], f"{last['found']} {last['remedy']}"


ROOM = {"model": "sam2_nano", "device": "cuda:0", "device_mb": 9000, "disk_mb": 50000, "image_mb": 2048}
HEALTH = {"/slicecast/health": (200, {**ROOM, "sessions_each": 16})}
ALIVE = {"/healthz": (200, {"status": "ok", "version": "0.1.0"})}


def test_a_server_that_is_reached():
    with answering({**ALIVE, **HEALTH, "/info/": (200, {"models": {"sam2": {}, "sam2_slice": {}}})}) as url:
        assert {name: check["found"] for name, check in checked(url).items()} == {
            "name": "127.0.0.1 is 127.0.0.1",
            "version": "0.1.0",
            "models": "sam2, sam2_slice",
            "model": "sam2_nano on cuda:0",
            "memory": "9000 MiB free",
            "disk": "50000 MiB free",
            "limits": "images up to 2048 MiB, 16 open sessions a user",
            "size": "a request of 2 MiB comes through",
        }


@pytest.mark.parametrize(
    ("answers", "name", "remedy"),
    [
        (
            {"/slicecast/health": (503, {"detail": "The weights of sam2_nano are missing."})},
            "model",
            "slicecast doctor",
        ),
        ({"/slicecast/health": (200, {**HEALTH["/slicecast/health"][1], "device_mb": 12})}, "memory", "smaller model"),
        ({"/slicecast/health": (200, {**HEALTH["/slicecast/health"][1], "disk_mb": 12})}, "disk", "make room"),
        ({"POST": (413, b"<html>413 Request Entity Too Large</html>")}, "size", "client_max_body_size"),
        ({"/info/": (500, {"detail": "A fault."})}, "models", "the server's log"),
        ({"/healthz": (200, {"status": "ok", "version": "9.9"})}, "version", ""),
    ],
)
def test_a_server_that_is_reached_but_lacks_something(answers, name, remedy):
    with answering({**ALIVE, **HEALTH, "/info/": (200, {"models": {"sam2": {}}}), **answers}) as url:
        check = checked(url)[name]
    assert (check["status"], remedy in check["remedy"]) == ("ok" if name == "version" else "fail", True)
    assert name != "version" or check["found"] == "9.9; here it is 0.1.0"


def test_a_server_that_asks_for_a_login():
    with answering({**ALIVE, **HEALTH, "/info/": (401, {"detail": "Log in first"})}) as url:
        assert reached(url)[0::2] == ("login", "the server asks for a login slicecast doctor --server URL --user NAME")
        assert reached(url, "--user", "lee", token="secret")[:2] == ("size", "ok")
        name, status, text = reached(url, "--user", "lee", token="wrong")
        assert (name, status) == ("login", "fail") and "do not belong together" in text


def test_a_server_that_is_not_reached():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        assert "no server listens" in reached(f"http://127.0.0.1:{closed.getsockname()[1]}")[2]
    assert "is not known here" in reached("http://nowhere.invalid")[2]
    assert "is no address" in reached("127.0.0.1:8000")[2]
    with answering({"/healthz": (200, b"<html>a proxy</html>")}) as url:
        assert "that is not Slicecast" in reached(url)[2]
    with answering(ALIVE) as url:
        assert "or http:// instead of https://" in reached(url.replace("http", "https"))[2]


def test_a_volumetric_model_without_weights_is_a_note_that_says_how_to_get_them():
    checks = {check.name: check for check in doctor.check_volumetric()}
    bundled = checks.pop("ct_sam3d_nano")
    assert bundled.status is CheckStatus.OK and "clients list it" in bundled.found
    assert {check.status for check in checks.values()} == {CheckStatus.NOTE}
    assert checks["sam_med3d"].remedy == "slicecast models pull sam_med3d"
    assert checks["sam_med3d_nano"].remedy.endswith("--config configs/training/sam_med3d_nano.yaml")
