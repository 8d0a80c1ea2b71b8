from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from slicecast.config import config_dir
from slicecast.errors import ConfigError, WeightsMissing
from slicecast_lab.training.nano import export_weights, fresh_model, read_settings, settings_from, train_nano


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def at(settings, steps):
    return replace(settings, loop=replace(settings.loop, steps=steps))


def test_twenty_steps_from_scratch_resume_bit_exactly_from_ten(tiny_settings, tmp_path: Path):
    whole = train_nano(tiny_settings, tmp_path / "whole")
    train_nano(at(tiny_settings, 10), tmp_path / "parts")
    parts = train_nano(tiny_settings, tmp_path / "parts")
    assert torch.equal(weights(whole), weights(parts))
    assert not torch.equal(weights(whole), weights(fresh_model(tiny_settings)))


def test_the_shipped_settings_are_valid():
    settings = read_settings(config_dir() / "training" / "nano.yaml")
    assert settings.clips.size_px == settings.image_size


def test_unknown_settings_are_refused():
    with pytest.raises(ConfigError, match="lerning_rate"):
        settings_from({"loop": {"steps": 5, "lerning_rate": 1}}, where="here")


def test_exported_weights_load_again(tiny_settings, tmp_path: Path):
    model = fresh_model(tiny_settings)
    export_weights(model, tmp_path / "w.safetensors")
    tensors = load_file(tmp_path / "w.safetensors")
    assert set(tensors) == set(model.state_dict())
    assert {t.dtype for t in tensors.values()} == {torch.float16}
    model.load_state_dict(tensors)


def test_a_run_can_start_from_exported_weights(tiny_settings, tmp_path: Path):
    model = fresh_model(replace(tiny_settings, seed=9))
    export_weights(model, tmp_path / "w.safetensors", half=False)
    started = fresh_model(replace(tiny_settings, initial=str(tmp_path / "w.safetensors")))
    assert torch.equal(weights(model), weights(started))
    with pytest.raises(WeightsMissing, match="start from"):
        fresh_model(replace(tiny_settings, initial=str(tmp_path / "none.safetensors")))


@pytest.mark.slow
def test_two_processes_resume_bit_exactly_too(tiny_settings, tmp_path: Path):
    two = replace(tiny_settings, processes=2)
    whole = train_nano(two, tmp_path / "whole")
    train_nano(at(two, 10), tmp_path / "parts")
    parts = train_nano(two, tmp_path / "parts")
    assert torch.equal(weights(whole), weights(parts))
