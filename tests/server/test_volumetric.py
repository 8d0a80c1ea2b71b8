"""A small volumetric network behind every way in: one click, the same mask."""

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

CENTRE = [int(n) for n in np.argwhere(phantom().truth).mean(axis=0).round()[::-1]]


def from_the_command_line(name: str, tmp_path, studies):
    out = tmp_path / "out.nii.gz"
    words = ["segment", str(studies / "first.nii.gz"), "-o", str(out), "--model", name]
    return CliRunner().invoke(app, [*words, "--point", f"spleen={','.join(map(str, CENTRE))}"]), out


@pytest.mark.slow
def test_a_network_without_weights_is_refused_and_listed_once_it_has_some(tmp_path, monkeypatch):
    monkeypatch.setenv("SLICECAST_HOME", str(tmp_path / "home"))
    studies = write_studies(tmp_path / "studies")
    assert from_the_command_line("sam_med3d_nano", tmp_path, studies)[0].exit_code == 1
    give_weights("sam_med3d_nano")  # made by a rule
    one_click_gives_the_same_mask("sam_med3d_nano", tmp_path, studies)


@pytest.mark.parametrize("name", ["ct_sam3d_nano", "sam2_nano+ct_sam3d_nano"])
def test_one_click_gives_the_same_mask_through_infer_a_session_and_the_command_line(name, tmp_path):
    one_click_gives_the_same_mask(name, tmp_path, write_studies(tmp_path / "studies"))


def one_click_gives_the_same_mask(name: str, tmp_path, studies):
    done, out = from_the_command_line(name, tmp_path, studies)
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
        assert answer.status_code == 200, answer.text
        np.testing.assert_array_equal(sitk.GetArrayFromImage(read_mask(answer.content, tmp_path)), wanted)
