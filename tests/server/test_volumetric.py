"""A small volumetric network, with real layers and rule-made weights, behind every way in: one click, the same mask."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from builders import phantom
from labelserver import read_mask, serving, write_studies
from nets import give_weights
from typer.testing import CliRunner

from slicecast.cli.main import app
from slicecast.volume import read_volume

pytestmark = pytest.mark.slow

CENTRE = [int(n) for n in np.argwhere(phantom().truth).mean(axis=0).round()[::-1]]


@pytest.mark.parametrize("name", ["ct_sam3d_nano", "sam_med3d_nano"])
def test_one_click_gives_the_same_mask_through_infer_a_session_and_the_command_line(name, tmp_path, monkeypatch):
    monkeypatch.setenv("SLICECAST_HOME", str(tmp_path / "home"))
    studies = write_studies(tmp_path / "studies")
    out = tmp_path / "out.nii.gz"
    words = ["segment", str(studies / "first.nii.gz"), "-o", str(out), "--model", name]
    words += ["--point", f"spleen={','.join(map(str, CENTRE))}"]
    assert CliRunner().invoke(app, words).exit_code == 1  # no weights yet
    give_weights(name)
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    wanted = read_volume(out).array
    i, j, k = CENTRE
    assert wanted[k, j, i] == 1

    with serving(tmp_path / "app", studies, {"labels": "spleen", "model": "sam2_nano"}) as client:
        assert name in client.get("/info/").json()["models"]
        params = json.dumps({"spleen": [CENTRE], "background": [], "result_extension": ".nrrd"})
        answer = client.post(f"/infer/{name}?image=first&output=image", data={"params": params})
        assert answer.status_code == 200, answer.text
        np.testing.assert_array_equal(sitk.GetArrayFromImage(read_mask(answer.content, tmp_path)), wanted)

        address = client.post("/slicecast/sessions", json={"image": "first", "model": name}).headers["location"]
        click = {"kind": "point", "object": "spleen", "ijk": CENTRE}
        assert client.post(f"{address}/prompts", json={"prompts": [click]}).status_code == 200
        with client.stream("POST", f"{address}/propagate") as lines:
            assert json.loads(list(lines.iter_lines())[-1]).get("event") != "error"
        answer = client.get(f"{address}/result", params={"format": "nrrd"})
        np.testing.assert_array_equal(sitk.GetArrayFromImage(read_mask(answer.content, tmp_path)), wanted)
