"""The command ``slicecast lab train promote``, on a copy of the settings and the bundled file."""

import shutil

import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from slicecast.cli.main import app
from slicecast.config import config_dir
from slicecast.files import file_sha256
from slicecast.models import weights
from slicecast.models.registry import bundled_spec
from slicecast.models.weights import weights_path


@pytest.fixture
def silent(tmp_path, monkeypatch):
    """Weights that know nothing, beside copies of all that promoting changes."""
    shutil.copytree(config_dir(), tmp_path / "configs")
    shutil.copytree(weights.BUNDLED_DIR, tmp_path / "bundled")
    monkeypatch.setenv("SLICECAST_CONFIGS", str(tmp_path / "configs"))
    monkeypatch.setattr(weights, "BUNDLED_DIR", tmp_path / "bundled")
    file = tmp_path / "silent.safetensors"
    save_file({name: tensor * 0 for name, tensor in load_file(weights_path(bundled_spec())).items()}, file)
    return file


def run(*words):
    return CliRunner().invoke(app, ["lab", "train", "promote", *map(str, words)])


@pytest.mark.slow
def test_worse_weights_are_refused_with_the_numbers_and_nothing_changes(silent):
    before = bundled_spec()
    done = run(silent, "--limit", 2)
    assert done.exit_code == 1 and "--force" in done.output and "worse" in done.output
    assert "present 0." in done.output and "candidate 0." in done.output
    assert bundled_spec() == before and file_sha256(weights_path(before)) == before.sha256


def test_force_replaces_without_comparing(silent):
    done = run(silent, "--force", "--set", "evidence=true")
    assert done.exit_code == 0, done.output
    assert bundled_spec().sha256 == file_sha256(silent) and bundled_spec().evidence
    assert "present" not in done.output


@pytest.mark.parametrize(("words", "said"), [(("--set", "evidence"), "KEY=VALUE"), ((), "export-nano")])
def test_what_cannot_be_done_is_said(silent, words, said):
    done = run(silent.with_name("none.safetensors"), "--force", *words)
    assert done.exit_code in (1, 2) and said in done.output and "Traceback" not in done.output
