"""napari with its unmodified nnInteractive plugin on a screen that is not there: connect, click, mask, undo."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from labelserver import ROOT
from nnclient import running

from slicecast.volume import read_volume

BUILD = ROOT / "build" / "desktop"
PYTHON = BUILD / "venv" / "bin" / "python"
STUDIES, TRUTH = ROOT / "sample-data" / "studies", ROOT / "sample-data" / "truth"
KIDNEY, CLICK_KJI = 3, (14, 40, 100)
LIMIT_S = 300


@pytest.mark.desktop
@pytest.mark.skipif(
    not PYTHON.exists() or not shutil.which("xvfb-run"), reason="make test-desktop installs what it needs"
)
def test_a_click_in_napari_shows_the_mask_and_undo_takes_it_back(tmp_path: Path):
    image = shutil.copytree(STUDIES, tmp_path / "studies") / "ct_abdomen_a.nii.gz"
    picture = BUILD / "napari.png"
    display = {"HOME": str(tmp_path), "LIBGL_ALWAYS_SOFTWARE": "1", "QT_QPA_PLATFORM": "xcb"}
    with running(tmp_path / "app", tmp_path / "studies") as (address, _):
        driver = [PYTHON, Path(__file__).with_name("drive_napari.py"), f"{address}/nninteractive", image]
        done = subprocess.run(
            ["xvfb-run", "-a", "-s", "-screen 0 1280x800x24", *driver, *map(str, CLICK_KJI), picture],
            env={**os.environ, **display},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    truth = read_volume(TRUTH / image.name).array == KIDNEY
    mask = np.load(f"{picture}.npy") == 1
    assert told["hit"] and tuple(told["shape"]) == truth.shape and "sam2_nano" in told["license"]
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.8
    assert picture.stat().st_size > 50_000
