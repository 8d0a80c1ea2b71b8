"""The shell examples of the documentation: each is carried out, or it is said which test does so, or why none can."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import nibabel
import numpy as np
import pytest
from clinic import SAMPLES

from slicecast.demo.server_process import serving

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)

ELSEWHERE = {
    r"make (run|demo|install|install-server|test|lint)\b": "by hand: minutes and GiB are in docs/deployment.md",
    r"make wheelhouse|cd wheelhouse|python3\.11 -m venv|/opt/slicecast|SAM2_BUILD": "tests/deploy/test_offline.py",
    r"\.venv/bin/python -m pip wheel": "tests/deploy/test_wheel.py",
    r"pip install": "by hand: a version that does not exist yet, and Ray on several machines",
    r"source ": "by hand",
    r"docker ": "tests/deploy/test_image.py",  # the same steps; no container can run where the tests do
    r"[A-Z_]+=\S+$": "tests/deploy/test_compose.py",
    r"useradd|cp deploy|systemctl|journalctl": "tests/deploy/test_systemd.py",
    r"SLICECAST_NAME=\S+ caddy": "tests/deploy/test_compose.py",
    r"slicecast serve": "tests/cli/test_serve.py",  # it does not end; one runs beside all examples
    r"slicecast models (pull|rollback|versions)|.* --model sam_med3d": "tests/cli/test_models.py",
    r"slicecast segment dicom_folder": "tests/cli/test_segment.py",
    r"slicecast (simulate|finetuning) --data hippocampus": "tests/lab/cli/test_simulate.py",  # a data set of others
    r"ray ": "by hand: a cluster",
}
"""How a line begins that is not carried out here: which test does, or why none can."""


def commands(page: Path) -> Iterator[str]:
    """Yield the commands of a page's shell blocks, those of several lines in one."""
    for language, block in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language not in ("", "sh", "bash"):
            continue
        open_command = ""
        for line in block.replace("\\\n", " ").splitlines():
            open_command += f"{line}\n"
            try:
                words = shlex.split(open_command, comments=True)
            except ValueError:  # a quotation goes on
                continue
            if words:
                yield open_command.strip()
            open_command = ""


def reason(command: str) -> str:
    return next((why for start, why in ELSEWHERE.items() if re.match(start, command)), "")


PRELUDE = """
slicecast() {{ {python} -m slicecast.cli.main "$@"; }}
curl() {{ command curl --fail-with-body "$@"; }}
"""

HERE = {page: [c for c in commands(page) if not reason(c) or re.match(r"(URL|S)=", c)] for page in PAGES}


@pytest.mark.parametrize(("start", "why"), ELSEWHERE.items())
def test_what_is_not_carried_out_here_is_somewhere(start, why):
    assert any(re.match(start, command) for page in PAGES for command in commands(page))
    assert why.startswith("by hand") or (ROOT / why).is_file()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the scans that examples name, and a server; what examples say is replaced by what is here."""
    place = tmp_path_factory.mktemp("examples")
    shutil.copytree(SAMPLES / "studies", place / "sample-data" / "studies", ignore=shutil.ignore_patterns(".*"))
    with tarfile.open(ROOT / "tests" / "deploy" / "state-2026-11-21.tar.gz") as archive:
        archive.extractall(place / "old", filter="data")
    (place / "old" / "studies").rename(place / "scans")
    (place / "my-scans").mkdir()
    i, j, k = np.indices((160, 176, 48))
    scan = np.where((i - 120) ** 2 + (j - 96) ** 2 + 4 * (k - 36) ** 2 < 900, 300, 0).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(scan, np.diag([2.0, 2.0, 4.0, 1.0])), place / "ct.nii.gz")
    studies = place / "sample-data" / "studies"
    with serving(studies, log=place / "log.txt") as server, httpx.Client(base_url=server.url, timeout=300.0) as client:
        session = client.post("/slicecast/sessions", json={"image": "ct_abdomen_a"}).headers["Location"]
        liver = {"kind": "point", "object": "liver", "ijk": [90, 62, 38]}
        for _ in range(3):  # docs/cli.md replays revision 3
            assert client.post(f"{session}/prompts", json={"prompts": [liver]}).status_code == 200
        name = session.rpartition("/")[2]
        yield (
            place,
            {
                "https://labels.example.org": server.url,
                "http://127.0.0.1:8000": server.url,
                "THE_ID": name,
                "4f1c09": name,
                "STUDIES": str(studies),
                "restore scans-monday.tar --studies scans": "restore scans-monday.tar --studies restored",
            },
        )


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page, found in HERE.items() if found], ids=lambda p: p.name)
def test_examples_do_what_they_say(page, place):
    """One shell for a page; every command must succeed, and the server must not refuse."""
    folder, here = place
    script = "\n".join(HERE[page])
    for said, meant in here.items():
        script = script.replace(said, meant)
    script = PRELUDE.format(python=sys.executable) + script
    env = {**os.environ, "SLICECAST_USERS": str(folder / "users.json")}
    done = subprocess.run(
        ["bash", "-exc", script],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
