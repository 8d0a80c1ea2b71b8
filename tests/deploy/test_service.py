"""The systemd unit and the proxy's configuration, by the programs that read them."""

import shutil
import subprocess
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"


def test_systemd_takes_the_unit(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    unit = (DEPLOY / "slicecast.service").read_text(encoding="utf-8")
    for there, here in (("/opt/slicecast/bin/slicecast", "/bin/true"), ("=slicecast\n", "=root\n")):
        assert there in unit
        unit = unit.replace(there, here)  # neither is installed where tests run
    (tmp_path / "slicecast.service").write_text(unit, encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", tmp_path / "slicecast.service"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_is_hardened():
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    rated = ["systemd-analyze", "security", "--offline=true", "--threshold=26", DEPLOY / "slicecast.service"]
    done = subprocess.run(rated, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout  # it stays at 2.6 of 10 or below


def test_caddy_takes_its_file():
    if shutil.which("caddy") is None:
        pytest.skip("needs caddy")
    command = ["caddy", "validate", "--adapter", "caddyfile", "--config", DEPLOY / "Caddyfile"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
