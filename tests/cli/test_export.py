"""`slicecast export` on the command line."""

import json

from builders import phantom
from typer.testing import CliRunner

from slicecast.cli.main import app
from slicecast.volume import read_volume, write_mask, write_volume


def test_it_writes_and_says_what(tmp_path):
    studies = tmp_path / "studies"
    (studies / "labels" / "final").mkdir(parents=True)
    volume, truth = phantom()
    write_volume(studies / "case.nii.gz", volume)
    write_mask(studies / "labels" / "final" / "case.nrrd", truth, volume.geometry)
    labels = {"final": {"ext": ".nrrd", "info": {}}}
    index = {"objects": {"case": {"image": {"ext": ".nii.gz", "info": {}}, "labels": labels}}}
    (studies / "datastore_v2.json").write_text(json.dumps(index))
    run = CliRunner().invoke(app, ["export", str(studies), "-o", str(tmp_path / "out")])
    assert run.exit_code == 0 and "case: " in run.output
    assert (read_volume(tmp_path / "out" / "case.nii.gz").array > 0).sum() == truth.sum()
    for wrong in (["--tag", "original"], ["--image", "nobody"]):
        run = CliRunner().invoke(app, ["export", str(studies), "-o", str(tmp_path / "out"), *wrong])
        assert run.exit_code == 2 and "There is no label" in run.output
