"""The wheel: built, installed where no source tree is, served, clicked."""

import shutil
import subprocess
import sys
import sysconfig

import httpx
import pytest
from wheels import PIP, build_wheel, run

from slicecast.config import project_dir
from slicecast.demo.server_process import free_port, running_server
from slicecast.volume import read_volume

pytestmark = pytest.mark.slow

STRUCTURE = {"kind": "point", "object": "liver", "ijk": [40, 50, 20]}


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """A venv that holds the wheel, and sees the packages that it needs in the venv of the tests."""
    place = tmp_path_factory.mktemp("wheel")
    wheel = build_wheel(place)
    run(sys.executable, "-m", "venv", "--without-pip", place / "venv")
    python = place / "venv" / "bin" / "python"
    run(*PIP, "--python", python, "install", "--no-deps", "--no-index", wheel)
    packages = next((place / "venv").glob("lib/python*/site-packages"))
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    return place


@pytest.fixture
def outside(clean, tmp_path, monkeypatch):
    """The folder of a user with one scan; nothing points to the source tree."""
    for name in ("PYTHONPATH", "SLICECAST_MODEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLICECAST_HOME", str(tmp_path / "home"))
    (tmp_path / "scans").mkdir()
    shutil.copy(project_dir("sample-data") / "studies" / "ct_abdomen_b.nii.gz", tmp_path / "scans")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_wheel_serves_and_answers_a_click(clean, outside):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [clean / "venv" / "bin" / "slicecast", "serve", "--studies", "scans", "--port", str(port)]
    with (
        running_server(list(map(str, command)), url=url, log=outside / "log.txt"),
        httpx.Client(base_url=url) as client,
    ):
        for page in ("/", "/annotate/", "/ohif/", "/campaign/", "/docs", "/annotate/page/niivue.js"):
            assert client.get(page, follow_redirects=True).status_code == 200, page
        opened = client.post("/slicecast/sessions", json={"image": "ct_abdomen_b"})
        session = opened.headers["Location"]
        assert client.post(f"{session}/prompts", json={"prompts": [STRUCTURE]}).status_code == 200
        answer = client.get(f"{session}/result", timeout=300.0)
        assert answer.status_code == 200, answer.text
    (outside / "mask.nii.gz").write_bytes(answer.content)
    i, j, k = STRUCTURE["ijk"]
    assert read_volume(outside / "mask.nii.gz").array[k, j, i] == 1


def test_the_wheel_brings_what_its_commands_need(clean, outside):
    done = subprocess.run([clean / "venv" / "bin" / "slicecast", "models", "list"], capture_output=True, text=True)
    assert done.returncode == 0 and "ready" in done.stdout, done.stderr
