"""Volumetric checkpoints load by name, from files that are trusted, and never run code."""

import numpy as np
import pytest
import torch
from oracle_fill import fill_torch
from safetensors.torch import save_file

from slicecast.config import config_dir
from slicecast.errors import ConfigError, WeightsCorrupt, WeightsMissing
from slicecast.files import file_sha256
from slicecast.models import graphs, weights
from slicecast.models.registry import ModelSpec, get_spec, load_registry
from slicecast.models.volumetric import (
    FlatDecoder,
    GraphDecoder,
    build_volumetric,
    load_by_name,
    load_volume_predictor,
    normaliser,
)
from slicecast.volume import Window


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Pins and pulled weights of a test are its own."""
    monkeypatch.setenv("SLICECAST_HOME", str(tmp_path / "home"))


@pytest.fixture(params=["ct_sam3d_nano", "sam_med3d_nano"])
def architecture(request):
    return config_dir() / f"{request.param}.yaml"


@pytest.fixture
def spec(architecture, tmp_path):
    return ModelSpec(
        name="mine",
        title="Mine",
        architecture=str(architecture),
        image_size=64,
        file="mine.pth",
        folder=str(tmp_path),
        licence="none",
        url="https://example.org/mine.pth",
        volumetric=True,
    )


def filled(architecture):
    return fill_torch(build_volumetric(architecture))


def test_a_checkpoint_in_either_form_loads_and_answers_the_same(architecture, spec, tmp_path):
    state = filled(architecture).state_dict()
    torch.save({"model_state_dict": state, "epoch": 3}, tmp_path / "mine.pth")
    weights.verify(spec, lambda sha256, size: True)
    assert load_volume_predictor(spec).side == 64
    save_file(state, tmp_path / "mine.safetensors")
    other = ModelSpec(**{**{f: getattr(spec, f) for f in spec.__dataclass_fields__}, "file": "mine.safetensors"})
    with pytest.raises(WeightsCorrupt, match=r"bytes instead of|SHA-256"):  # another file than the pinned one
        load_volume_predictor(other)


def test_missing_unknown_and_misshapen_tensors_are_listed(architecture):
    net = filled(architecture)
    state = net.state_dict()
    name = next(iter(state))
    state["extra.weight"] = state.pop(name)
    other = next(n for n, t in state.items() if t.ndim == 1)
    state[other] = torch.zeros(3)
    with pytest.raises(WeightsCorrupt) as error:
        load_by_name(build_volumetric(architecture), state, name="mine")
    for part in (f"1 missing ({name})", "1 unknown (extra.weight)", f"1 of another shape ({other})"):
        assert part in str(error.value)


def test_a_file_without_a_published_hash_is_used_only_after_it_was_confirmed(spec, tmp_path):
    (tmp_path / "mine.pth").write_bytes(b"some bytes")
    assert not weights.is_present(spec)
    with pytest.raises(WeightsCorrupt, match=r"not trusted yet.*10 bytes"):
        weights.verify(spec)
    asked = []
    weights.verify(spec, lambda sha256, size: not asked.append((sha256, size)))
    assert asked == [(file_sha256(tmp_path / "mine.pth"), 10)]
    assert weights.is_present(spec)
    assert weights.verify(spec) == tmp_path / "mine.pth"  # nobody is asked again
    (tmp_path / "mine.pth").write_bytes(b"other byte")
    with pytest.raises(WeightsCorrupt, match="SHA-256"):
        weights.verify(spec, lambda sha256, size: True)


def test_a_page_for_people_is_not_pulled():
    with pytest.raises(WeightsMissing, match="Fetch the file there"):
        weights.pull(load_registry()["ct_sam3d"])


def test_a_volumetric_model_is_never_the_default(spec):
    named = load_registry()["sam_med3d"]
    path = weights.weights_path(named)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"weights")
    weights.verify(named, lambda sha256, size: True)
    assert not weights.default_model().volumetric


def test_an_architecture_that_is_none_is_refused(tmp_path):
    (tmp_path / "bad.yaml").write_text("network: unet")
    with pytest.raises(ConfigError, match="one of sam_med3d, ct_sam3d"):
        build_volumetric(tmp_path / "bad.yaml")


def test_an_intensity_may_be_two_numbers():
    cube = np.array([-300.0, -200, 0, 200, 500], dtype=np.float32)
    np.testing.assert_allclose(normaliser("-200:200")(cube, None), [0, 0, 0.5, 1, 1])


@pytest.mark.skipif(not graphs.available(), reason="OpenVINO is not installed")
def test_a_compiled_decoder_answers_as_pytorch_does():
    cube = np.random.default_rng(0).normal(size=(64, 64, 64)).astype(np.float32)
    answers, decoders = [], []
    for openvino in (False, True):
        predictor = load_volume_predictor(get_spec("ct_sam3d_nano"), device="cpu", openvino=openvino)
        encoded, previous = predictor.encode(cube, Window("test", -2.0, 2.0)), None
        for count in (1, 2):
            points, positive = np.array([[30, 32, 33], [20, 40, 33]][:count]), np.array([True, False][:count])
            answer = predictor.segment(encoded, points, positive, previous)
            previous = answer.previous
        answers.append(answer)
        decoders.append(predictor._model.mask_decoder)
    assert isinstance(decoders[1], GraphDecoder) and not isinstance(decoders[1].graph, FlatDecoder)
    np.testing.assert_allclose(answers[1].logits, answers[0].logits, atol=1e-3)
    assert answers[1].predicted_iou == pytest.approx(answers[0].predicted_iou, abs=1e-4)
