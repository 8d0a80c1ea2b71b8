"""What 3D Slicer's extension MONAILabel does, step by step, with the client that the extension itself uses.

The steps follow `MONAILabel.py` of the extension, which monailabel's wheel brings along; the class below repeats what
it computes from the server's answers.
"""

import importlib.util
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from builders import phantom
from monailabel.client import MONAILabelClient

SLICER_CLIENT = Path(sys.prefix) / "monailabel/plugins/slicer/MONAILabel/MONAILabelLib/client.py"

# neither client ever closes its sockets
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning", "ignore:'cgi' is deprecated")


def slicers_client() -> type:
    """Load the client of the extension."""
    spec = importlib.util.spec_from_file_location("slicer_monailabel_client", SLICER_CLIENT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.MONAILabelClient


class Slicer:
    """The extension's logic without its windows."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.info = client.info()
        self.switched = False

    def next_sample(self, strategy: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Fetch a sample, load its pre-annotation, run the automatic model; return it and the segments by name."""
        sample = self.client.next_sample(strategy, {})
        segments = self.load_original(sample["id"])
        for label in self.info["labels"]:
            segments.setdefault(label, np.zeros((0,), bool))
        automatic = [name for name, model in self.info["models"].items() if self.info["labels"][0] in model["labels"]]
        if automatic:
            offered = [name for name in automatic if self.info["models"][name]["type"] in ("segmentation", "detection")]
            self._infer(offered[0] if offered else "", sample["id"], {}, segments)
        return sample, segments

    def load_original(self, image: str) -> dict[str, np.ndarray]:
        """Load an image's pre-annotation, if there is one, with the names from its record."""
        segments: dict[str, np.ndarray] = {}
        record = self.client.datastore()["objects"][image]["labels"].get("original")
        if record:
            names = list(record["info"]["params"]["label_names"])
            self._import(self.client.download_label(image, "original"), names, segments)
        return segments

    def smart_edit(
        self,
        model: str,
        image: str,
        points: dict[str, dict[str, list]],
        label: str,
        *,
        roi: list[int] | None = None,
        session_id: str | None = None,
    ) -> dict[str, np.ndarray]:
        """Press Update with `label` selected; `points` holds foreground and background points by segment."""
        told = self.info["models"][model]
        here = points[label]
        k = here["foreground"][-1][2] if here["foreground"] else None
        flat = told["dimension"] == 2
        if told["type"] == "deepedit" and len(told["labels"]) > 0:
            params: dict[str, Any] = {
                name: points.get(name, {"foreground": []})["foreground"] for name in self.info["labels"]
            }
        else:
            kept = {kind: [p for p in here[kind] if not (flat and k) or p[2] == k] for kind in here}
            params = {"label": label, **kept}
        params["label"] = label
        params.update({key: v[0] if isinstance(v, list) else v for key, v in told["config"].items()})
        if roi:
            params["roi"] = roi
        if flat:
            params["slice"] = k
        if self.switched:
            params["reset_state"] = True
        segments: dict[str, np.ndarray] = {}
        names = None if "foreground" not in params else [label]
        self._infer(model, image, params, segments, names=names, session_id=session_id)
        return segments

    def save(self, image: str, segments: dict[str, np.ndarray], file: Path, grid: sitk.Image) -> None:
        """Export the segments as 1, 2, 3 ..., and send the numbers of the list, as the extension does."""
        kept = [(place, name) for place, name in enumerate(segments, start=1) if name != "background"]
        mask = np.zeros(grid.GetSize()[::-1], np.uint8)
        for value, (_, name) in enumerate(kept, start=1):
            mask[segments[name]] = value
        picture = sitk.GetImageFromArray(mask)
        picture.CopyInformation(grid)
        sitk.WriteImage(picture, str(file))
        info = [{"name": name, "idx": place} for place, name in kept]
        self.client.save_label(image, str(file), params={"label_info": info})

    def _infer(self, model, image, params, segments, *, names=None, session_id=None) -> None:
        asked = {**params, "result_extension": ".nrrd", "result_dtype": "uint8"}
        file, answer = self.client.infer(model, image, asked, None, None, session_id)
        if names is None:
            names = answer["label_names"] or self.info["models"][model]["labels"]
            names = [name for name, _ in sorted(names.items(), key=lambda item: item[1])]
        self._import(file, names, segments)

    @staticmethod
    def _import(file: str, names: list[str], segments: dict[str, np.ndarray]) -> None:
        """Pair the values present, in order, with the names: all that Slicer knows of a mask."""
        array = sitk.GetArrayFromImage(sitk.ReadImage(file))
        values = [int(value) for value in np.unique(array) if value]
        for value, name in zip(values, [n for n in names if n != "background"], strict=False):
            segments[name] = array == value


@pytest.fixture(params=["slicer", "wheel"])
def slicer(request, server, tmp_path) -> Slicer:
    """The extension's logic, connected; with its own copy of the client, and with the wheel's."""
    kind = slicers_client() if request.param == "slicer" else MONAILabelClient
    (tmp_path / "client").mkdir()
    client = kind(server.url, tmpdir=str(tmp_path / "client"), client_id=f"user-{request.param}")
    assert not client.auth_enabled()
    return Slicer(client)


TRUTH = phantom().truth != 0
IMAGES = ("first", "second", "third")
"""Each is the phantom moved by its place along k."""
CENTRE = [int(n) for n in np.argwhere(TRUTH).mean(axis=0).round()[::-1]]
OUTSIDE = [1, 1, CENTRE[2]]


def moved(number: int) -> list[int]:
    """Return the ball's centre in the image of that place."""
    return [*CENTRE[:2], CENTRE[2] + number]


def test_connecting(slicer):
    assert "config" not in slicer.info  # Slicer would ask to upgrade the server
    assert slicer.info["labels"] == ["ball", "other", "background"]
    for model in slicer.info["models"].values():
        assert model["description"] and model["dimension"] in (2, 3) and model["type"] in ("deepedit", "deepgrow")
        for value in model["config"].values():
            assert isinstance(value, str) or all(isinstance(choice, str) for choice in value)


def test_next_sample_without_a_pre_annotation(slicer, place):
    sample, segments = slicer.next_sample("first")
    assert sample["id"] in IMAGES and sample["reason"]
    file = place / "studies" / f"{sample['id']}.nii.gz"
    assert "path" not in sample  # Slicer then downloads the image
    assert list(segments) == ["ball", "other", "background"] and not any(mask.any() for mask in segments.values())
    url = f"{slicer.client._server_url}/datastore/image?image={sample['id']}"
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == file.read_bytes()


def test_smart_edit_of_one_structure(slicer):
    points = {"ball": {"foreground": [CENTRE], "background": []}}
    first = slicer.smart_edit("sam2_single", "first", points, "ball")["ball"]
    assert first[tuple(CENTRE[::-1])]
    points["ball"]["background"] = [OUTSIDE]
    second = slicer.smart_edit("sam2_single", "first", points, "ball")["ball"]
    assert not second[tuple(OUTSIDE[::-1])]
    points["ball"]["background"] = []
    slicer.switched = True
    assert np.array_equal(slicer.smart_edit("sam2_single", "first", points, "ball")["ball"], first)


def test_smart_edit_with_a_region_of_interest(slicer):
    """The pairs may be the wrong way round, because RAS to IJK flips."""
    low, high = (np.argwhere(TRUTH).min(axis=0)[::-1], np.argwhere(TRUTH).max(axis=0)[::-1])
    roi = [int(n) for pair in zip(high, low, strict=True) for n in pair]
    points = {"ball": {"foreground": [], "background": []}}
    mask = slicer.smart_edit("sam2_single", "first", points, "ball", roi=roi)["ball"]
    i, j, k = CENTRE
    assert mask[k, j, i]
    assert not mask[k, :, : max(low[0] - 3, 0)].any()


def test_smart_edit_of_several_structures(slicer):
    """Landmarks by label; those of the background say where nothing is."""
    points = {
        "other": {"foreground": [[3, 3, CENTRE[2]]], "background": []},
        "ball": {"foreground": [CENTRE], "background": []},
        "background": {"foreground": [OUTSIDE], "background": []},
    }
    segments = slicer.smart_edit("sam2", "first", points, "other")
    assert set(segments) <= {"ball", "other"}
    assert segments["ball"][tuple(CENTRE[::-1])]
    assert not any(mask[tuple(OUTSIDE[::-1])] for mask in segments.values())
    only = slicer.smart_edit("sam2", "first", {**points, "ball": {"foreground": [], "background": []}}, "other")
    assert set(only) <= {"other"}


@pytest.mark.parametrize("k", [CENTRE[2], 0])
def test_smart_edit_of_one_slice(slicer, k):
    points = {"ball": {"foreground": [[*CENTRE[:2], k]], "background": []}}
    mask = slicer.smart_edit("sam2_slice", "first", points, "ball").get("ball", np.zeros(TRUTH.shape, bool))
    assert not np.delete(mask, k, axis=0).any()
    assert mask[k].any() or k == 0


def test_a_pre_annotation_is_loaded_with_next_sample(slicer):
    for number, image in enumerate(IMAGES):
        params = {"ball": [moved(number)], "save_label": True, "label_tag": "original", "result_extension": ".nii.gz"}
        slicer.client.infer("sam2", image, params)
    sample, segments = slicer.next_sample("first")
    assert segments["ball"][tuple(moved(IMAGES.index(sample["id"]))[::-1])]


def test_submitting_after_a_segment_that_is_left_out(slicer, place, tmp_path):
    grid = sitk.ReadImage(str(place / "studies" / "third.nii.gz"))
    ball = np.roll(TRUTH, 2, axis=0)
    corner = np.zeros_like(ball)
    corner[:2, :2, :2] = True
    slicer.save("third", {"background": ~ball, "ball": ball, "other": corner}, tmp_path / "label.nii.gz", grid)
    saved = slicer.client.datastore()["objects"]["third"]["labels"]["final"]["info"]
    assert saved["label_info"] == [{"name": "ball", "idx": 1}, {"name": "other", "idx": 2}]
    assert saved["label_info_sent"] == [{"name": "ball", "idx": 2}, {"name": "other", "idx": 3}]
    assert slicer.client.info()["datastore"]["completed"] >= 1
    stored = sitk.GetArrayFromImage(sitk.ReadImage(slicer.client.download_label("third", "final")))
    assert np.array_equal(stored == 1, ball) and np.array_equal(stored == 2, corner)


def test_a_volume_of_ones_own(slicer, place):
    """Slicer sends a volume that the server does not have, and names the session with every request."""
    session = slicer.client.create_session(str(place / "studies" / "second.nii.gz"))["session_id"]
    assert slicer.client.get_session(session)
    points = {"ball": {"foreground": [moved(1)], "background": []}}
    mask = slicer.smart_edit("sam2_single", "MRHead", points, "ball", session_id=session)["ball"]
    assert mask[CENTRE[2] + 1, CENTRE[1], CENTRE[0]]
    slicer.client.remove_session(session)
    with pytest.raises(type(slicer.client).infer.__globals__["MONAILabelClientException"]) as refused:
        slicer.smart_edit("sam2_single", "MRHead", points, "ball", session_id=session)
    assert "Status: 404" in refused.value.msg


def test_an_uploaded_image_is_one_of_the_studies(slicer, place, tmp_path):
    file = tmp_path / "uploaded.nii.gz"
    sitk.WriteImage(sitk.ReadImage(str(place / "studies" / "first.nii.gz")), str(file))
    name = f"uploaded_{type(slicer.client).__module__.partition('.')[0]}"
    slicer.client.upload_image(str(file), name)
    points = {"ball": {"foreground": [CENTRE], "background": []}}
    assert slicer.smart_edit("sam2_single", name, points, "ball")["ball"].any()
