"""Promoting weights: compared on the same cases, refused when worse, and put in place with their hash."""

import shutil
from dataclasses import replace

import pytest
import yaml
from safetensors.torch import load_file, save_file

from slicecast.config import config_dir
from slicecast.errors import Conflict, WeightsMissing
from slicecast.files import file_sha256
from slicecast.models import weights
from slicecast.models.registry import bundled_spec
from slicecast.models.weights import verify, weights_path
from slicecast_lab.evaluation.candidate import candidate_spec
from slicecast_lab.evaluation.promote import (
    FLOOR_CASES,
    PROMPTS,
    compare,
    dice_by_prompt,
    promote,
    require_acceptable,
    sample_cases,
    with_settings,
)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A copy of the settings and of the bundled file, to be changed."""
    shutil.copytree(config_dir(), tmp_path / "configs")
    shutil.copytree(weights.BUNDLED_DIR, tmp_path / "bundled")
    monkeypatch.setenv("SLICECAST_CONFIGS", str(tmp_path / "configs"))
    monkeypatch.setattr(weights, "BUNDLED_DIR", tmp_path / "bundled")
    return tmp_path


@pytest.fixture
def silent(tmp_path):
    """Weights of the right shapes that know nothing."""
    file = tmp_path / "silent.safetensors"
    save_file({name: tensor * 0 for name, tensor in load_file(weights_path(bundled_spec())).items()}, file)
    return file


def test_the_sample_data_gives_one_case_for_each_structure():
    cases = sample_cases()
    assert {"ct_abdomen_a-liver", "mr_brain_b-brainstem", *FLOOR_CASES} <= {files.id for files in cases}
    assert {files.group for files in cases} == {"ct_abdomen_a", "ct_abdomen_b", "mr_brain_a", "mr_brain_b"}


def test_weights_that_know_nothing_are_refused(silent, cases):
    candidate = candidate_spec(silent)
    before, after = (dice_by_prompt(spec, cases, prompts=["box"]) for spec in (bundled_spec(), candidate))
    result = compare(before, after, [files.group for files in cases])
    assert result.verdict == "worse" and result.present["box"] > result.candidate["box"]
    with pytest.raises(Conflict, match="--force"):
        require_acceptable(result)


def test_the_same_weights_are_acceptable_and_undecided():
    scores = {prompt: [0.5, 0.8] for prompt in PROMPTS}
    result = compare(scores, scores, ["a", "b"])
    require_acceptable(result)
    assert result.verdict == "undecided" and result.difference.value == 0


def test_differences_are_paired_by_case():
    before, after = {"mask": [0.1, 0.9, 0.5]}, {"mask": [0.2, 1.0, 0.6]}
    assert compare(before, after, ["a", "b", "c"]).verdict == "better"


def test_promoted_weights_are_in_place_with_their_hash_and_comments_stay(place, silent):
    text = (place / "configs" / "models.yaml").read_text()
    target = promote(candidate_spec(silent), {"evidence": True})
    assert file_sha256(target) == file_sha256(silent) and verify(bundled_spec()) == target
    assert bundled_spec().evidence is True
    changed = (place / "configs" / "models.yaml").read_text()
    assert [line for line in text.splitlines() if "#" in line] == [line for line in changed.splitlines() if "#" in line]
    before, after = yaml.safe_load(text)["models"], yaml.safe_load(changed)["models"]
    mine = before.pop(bundled_spec().name), after.pop(bundled_spec().name)
    assert before == after
    assert {key for key in mine[1] if mine[0].get(key) != mine[1][key]} <= {"bytes", "sha256", "evidence"}


def test_an_entry_in_another_form_is_not_guessed():
    with pytest.raises(Conflict, match="by hand"):
        with_settings("models: {sam2_nano: {bytes: 1}}\n", "sam2_nano", {"bytes": 2})


def test_a_candidate_that_is_not_there():
    with pytest.raises(WeightsMissing, match="export-nano"):
        candidate_spec(weights_path(replace(bundled_spec(), file="none.safetensors")))
