"""The service under a systemd of its own, in namespaces, installed by the commands of docs/deployment.md."""

import os
import shutil
import sys
import sysconfig
import time
from pathlib import Path

import pytest
from clinic import SAMPLES
from machines import booted, click_inside, run
from wheels import ROOT, build_wheel

from slicecast.volume import read_volume

pytestmark = pytest.mark.slow

INSTALL = """
set -e
echo /opt/python/lib > /etc/ld.so.conf.d/0.conf; ldconfig
/opt/python/bin/python3 -m venv --without-pip /opt/slicecast
PYTHONPATH=/opt/packages /opt/python/bin/python3 -m pip --quiet --python /opt/slicecast/bin/python \\
    install --no-deps --no-index /opt/wheel/*.whl
echo /opt/packages > $(echo /opt/slicecast/lib/python*/site-packages)/others.pth
cd /opt/source
{documented}
"""


def documented(heading: str) -> str:
    """Return the commands under a heading of docs/deployment.md."""
    page = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    return page.partition(f"\n## {heading}\n")[2].partition("```sh\n")[2].partition("```")[0]


@pytest.fixture
def system(tmp_path):
    needed = ("systemd-run", "unshare", "setpriv", "ip")
    if os.getuid() != 0 or not all(map(shutil.which, needed)) or not Path("/lib/systemd/systemd").exists():
        pytest.skip("needs root, systemd, util-linux and iproute2")
    (tmp_path / "wheel").mkdir()
    build_wheel(tmp_path / "wheel")
    shutil.copytree(ROOT / "deploy", tmp_path / "source" / "deploy")
    shared = {
        Path(sys.base_prefix): "/opt/python",  # ProtectHome hides it where it lies
        Path(sysconfig.get_path("purelib")): "/opt/packages",
        tmp_path / "wheel": "/opt/wheel",
        tmp_path / "source": "/opt/source",
        SAMPLES / "studies": "/opt/scans",
    }
    with booted(shared) as machine:
        yield machine


def test_it_starts_answers_a_click_comes_back_after_a_crash_and_stops(system, tmp_path):
    def inside(*words):
        return run(*system.inside(words, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}))

    def told(name):
        return inside("systemctl", "show", "--value", "--property", name, "slicecast").strip()

    inside("sh", "-ec", INSTALL.format(documented=documented("As a service")))
    inside(
        "sh",
        "-ec",
        "cp /opt/scans/ct_abdomen_b.nii.gz /var/lib/slicecast/studies; chown -R slicecast: /var/lib/slicecast",
    )
    click_inside(system, "http://127.0.0.1:8000", tmp_path / "mask.nii.gz")
    assert read_volume(tmp_path / "mask.nii.gz").array[20, 50, 40] == 1
    assert inside("stat", "-c", "%U %a", "/var/lib/slicecast/studies/.slicecast") == "slicecast 700\n"

    first = told("MainPID")
    inside("systemctl", "kill", "--signal=SIGKILL", "slicecast")
    while told("NRestarts") != "1" or told("MainPID") in ("0", first):
        time.sleep(1.0)
    click_inside(system, "http://127.0.0.1:8000", tmp_path / "again.nii.gz")
    inside("systemctl", "stop", "slicecast")
    assert (told("ActiveState"), told("Result")) == ("inactive", "success")
    log = inside("journalctl", "--unit=slicecast", "--output=cat")
    assert "code=killed, status=9/KILL" in log and "Traceback" not in log
