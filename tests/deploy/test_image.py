"""The Dockerfile, carried out in a fresh Debian by chroot: no container can run where tests do. `make test-image`."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from dockerfile import build
from machines import click_inside, machine, run, running

from slicecast.config import project_dir
from slicecast.volume import read_volume

pytestmark = pytest.mark.image

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "image"


def from_checkout(source, target):
    """Copy what git tracks; `.dockerignore` leaves out no more than tests and docs."""
    tracked = subprocess.run(["git", "-C", ROOT, "ls-files", source], capture_output=True, text=True, check=True)
    for name in tracked.stdout.split():
        to = target / name
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, to)


@pytest.fixture(scope="module")
def image():
    if os.getuid() != 0 or shutil.which("mmdebstrap") is None:
        pytest.skip("needs root and mmdebstrap; on Debian: apt-get install mmdebstrap")
    for old in ("stage0", "stage1"):
        shutil.rmtree(BUILD / old, ignore_errors=True)
    BUILD.mkdir(parents=True, exist_ok=True)
    if not (BUILD / "base").is_dir():  # never written to; every stage begins as a copy
        run("unshare", "--mount", "mmdebstrap", "--quiet", "--variant=minbase", "bookworm", BUILD / "making")
        (BUILD / "making").rename(BUILD / "base")
    start = time.monotonic()
    built = build(ROOT / "Dockerfile", base=BUILD / "base", context=from_checkout, place=BUILD, args={"DEVICE": "cuda"})
    size = int(run("du", "-sm", built.root).split()[0])
    report = {"minutes": round((time.monotonic() - start) / 60, 1), "MiB": size, "seconds": built.seconds}
    (BUILD / "report.json").write_text(json.dumps(report, indent=1))
    return built


def test_the_image_serves_as_its_own_user_without_network_and_answers_a_click(image, tmp_path):
    entry, token = image.json("ENTRYPOINT"), ""
    shutil.copy(project_dir("sample-data") / "studies" / "ct_abdomen_b.nii.gz", image.root / "studies")
    refused = subprocess.run(image.inside([*entry, *image.json("CMD")]), capture_output=True, text=True)
    assert refused.returncode == 2 and "slicecast users add" in refused.stderr
    token = run(*image.inside([*entry, "users", "add", "anna"])).split()[-1]
    with machine(BUILD) as alone:
        offline = ["nsenter", f"--target={alone.pid}", "--net"]
        with running([*offline, *image.inside([*entry, *image.json("CMD")])], tmp_path / "log.txt") as pid:
            click_inside(alone, "http://127.0.0.1:8000", tmp_path / "mask.nii.gz", token=token)
            run(*offline, *image.inside(image.json("HEALTHCHECK")))
            owners = set(Path(f"/proc/{pid}/status").read_text().split("Uid:")[1].split()[:4])
    assert owners == {"1000"}
    assert read_volume(tmp_path / "mask.nii.gz").array[20, 50, 40] == 1
    assert (image.root / "studies" / ".slicecast").stat().st_uid == 1000
