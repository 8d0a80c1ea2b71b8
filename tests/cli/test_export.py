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


def test_one_bad_label_is_left_out_and_the_rest_is_written(tmp_path):
    final = tmp_path / "studies" / "labels" / "final"
    final.mkdir(parents=True)
    volume, truth = phantom()
    for name in ("bad", "gone", "good"):
        write_volume(tmp_path / "studies" / f"{name}.nii.gz", volume)
    (final / "bad.nrrd").write_text("garbage")
    write_volume(final / "good.nrrd", volume.with_array(truth.astype("float32")))  # whole numbers, stored as floats
    entry = {"image": {"ext": ".nii.gz", "info": {}}, "labels": {"final": {"ext": ".nrrd", "info": {}}}}
    index = {"objects": dict.fromkeys(("bad", "gone", "good"), entry)}
    (tmp_path / "studies" / "datastore_v2.json").write_text(json.dumps(index))
    for kind in ("nifti", "dicom-seg"):
        words = ["export", str(tmp_path / "studies"), "-o", str(tmp_path / kind), "--format", kind]
        run = CliRunner().invoke(app, words)
        assert run.exit_code == 1 and "bad was left out" in run.output and "is gone" in run.output
        assert [file.name.partition(".")[0] for file in (tmp_path / kind).iterdir()] == ["good"]
