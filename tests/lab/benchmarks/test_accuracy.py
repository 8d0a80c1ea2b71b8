"""The benchmark that writes the accuracy page, on phantoms that stand in for the real sets."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from builders import phantom

from slicecast.volume import write_mask, write_volume

MODULE = "slicecast_lab.benchmarks.accuracy"


@pytest.fixture
def data(tmp_path) -> Path:
    """Two cases of hippocampus, and one patient's two phases of ACDC."""
    sets = {"hippocampus": ["hippocampus_1", "hippocampus_2"], "acdc": ["patient1_frame1", "patient1_frame2"]}
    for name, cases in sets.items():
        for part in ("images", "labels"):
            (tmp_path / name / part).mkdir(parents=True)
        for case, kind in zip(cases, ("sphere", "anisotropic"), strict=True):
            scan, truth = phantom(kind)
            write_volume(tmp_path / name / "images" / f"{case}.nii.gz", scan)
            write_mask(tmp_path / name / "labels" / f"{case}.nii.gz", truth.astype("uint8"), scan.geometry)
    (tmp_path / "hippocampus" / "split.json").write_text(json.dumps({"test": sets["hippocampus"]}))
    return tmp_path


@pytest.mark.slow
def test_the_page_is_written_from_what_is_there(data, tmp_path, monkeypatch):
    monkeypatch.setenv("SLICECAST_DATA", str(data))
    monkeypatch.setenv("SLICECAST_MODEL", "sam2_nano")
    page = tmp_path / "docs" / "accuracy.md"
    words = ["--quick", "--only", "hippocampus", "--only", "acdc_rv", "--build", tmp_path / "build", "--page", page]
    subprocess.run([sys.executable, "-m", MODULE, *map(str, words)], check=True)
    text = page.read_text()
    for words in (
        "| hippocampus, test | 2 |",
        "| ACDC right ventricle | 2 (of 1 patients) |",
        "Not measured here: ACDC left",
        "## Against MONAI Label's own SAM 2 task",
        "level set",
    ):
        assert words in text
    assert {file.name for file in page.parent.iterdir()} == {"accuracy.md", "accuracy-clicks.png"}
    assert (tmp_path / "build" / "acdc_rv-mask.png").is_file()
