"""An installation without network: `make wheelhouse` here, the rest on a machine that reaches nothing."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from clinic import SAMPLES
from machines import click_inside, machine, run, running

from slicecast.volume import read_volume

pytestmark = pytest.mark.image

ROOT = Path(__file__).parents[2]
WHEELS = ROOT / "dist" / "wheelhouse"
INSTALL = f"""
# below TMPDIR, because the rest of that machine lies in memory
set -e
cd {WHEELS}
sha256sum --check --quiet SHA256SUMS
{sys.executable} -m venv $TMPDIR/venv
$TMPDIR/venv/bin/pip install --quiet --no-index --find-links . 'slicecast[postgres]'
mkdir /scans
cp {SAMPLES}/studies/ct_abdomen_b.nii.gz /scans
du -sm $TMPDIR/venv
"""
BARE = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/root", "PIP_CONFIG_FILE": "/dev/null"}


def test_wheels_and_hashes_are_enough(tmp_path):
    if os.getuid() != 0:
        pytest.skip("needs root, for a machine without network")
    start = time.monotonic()
    run("make", "-C", ROOT, "wheelhouse")
    collected = time.monotonic()
    with machine(ROOT, tmp_path) as alone:
        env = {**BARE, "TMPDIR": str(tmp_path)}
        lookup = alone.inside(["getent", "hosts", "example.org"], env=BARE)
        assert subprocess.run(lookup).returncode != 0, "there is a network"
        size = int(run(*alone.inside(["sh", "-c", INSTALL], env=env)).split()[0])
        installed = time.monotonic()
        serve = alone.inside([tmp_path / "venv" / "bin" / "slicecast", "serve", "--studies", "/scans"], env=env)
        with running(serve, tmp_path / "log.txt"):
            click_inside(alone, "http://127.0.0.1:8000", tmp_path / "mask.nii.gz")
    assert read_volume(tmp_path / "mask.nii.gz").array[20, 50, 40] == 1
    report = {
        "minutes to collect": round((collected - start) / 60, 1),
        "MiB of wheels": sum(wheel.stat().st_size for wheel in WHEELS.glob("*.whl")) >> 20,
        "minutes to install": round((installed - collected) / 60, 1),
        "MiB installed": size,
    }
    (ROOT / "build" / "offline.json").write_text(json.dumps(report, indent=1))
