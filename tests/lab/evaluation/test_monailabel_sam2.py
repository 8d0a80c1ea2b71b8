"""The process around MONAI Label's own SAM 2 task."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from slicecast_lab.evaluation.monailabel_sam2 import answer_lines


class Bright:
    """Finds what is bright."""

    def segment(self, request):
        return sitk.GetArrayFromImage(sitk.ReadImage(request["image"])) > 0


@pytest.fixture
def request_line(tmp_path) -> dict:
    scan = np.zeros((3, 40, 48), dtype=np.float32)
    scan[:, 10:25, 10:30] = 200
    sitk.WriteImage(sitk.GetImageFromArray(scan), tmp_path / "scan.nii.gz")
    points = {"foreground": [[20, 17, 1]], "background": [], "roi": []}
    return {"image": str(tmp_path / "scan.nii.gz"), "mask": str(tmp_path / "mask.npy"), **points}


def test_every_line_is_answered_with_a_mask_and_what_it_cost(request_line):
    answers = io.StringIO()
    answer_lines(Bright(), io.StringIO(f"{json.dumps(request_line)}\n" * 2), answers)
    first, second = map(json.loads, answers.getvalue().splitlines())
    assert set(first) == set(second) == {"seconds", "peak_rss_mib"} and first["peak_rss_mib"] > 10
    assert np.load(request_line["mask"]).sum() == 3 * 15 * 20


@pytest.mark.slow
def test_it_answers_without_network_and_leaves_running_servers_caches_alone(request_line, tmp_path):
    """Importing the module empties the cache folder in the home directory, unless it is told of another."""
    other = tmp_path / "home" / ".cache" / "monailabel" / "sam2" / "frames_of_a_running_server"
    other.mkdir(parents=True)
    words = [sys.executable, "-m", "slicecast_lab.evaluation.monailabel_sam2", "--model", "sam2_nano", "--threads", "1"]
    done = subprocess.run(
        words,
        input=json.dumps(request_line) + "\n",
        env={**os.environ, "HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["seconds"] > 0
    assert np.load(Path(request_line["mask"])).shape == (3, 40, 48)
    assert other.is_dir()
