"""Three labelled balls, and settings of a few steps."""

import json
import shutil
from pathlib import Path

import pytest
from learning import few, run, write_balls

from slicecast.config import config_dir
from slicecast.training.finetune import FILE


def few_steps(folder, monkeypatch):
    """Use settings of a few steps; return what changes them, by writing the file anew."""
    shutil.copytree(config_dir(), folder)
    monkeypatch.setenv("SLICECAST_CONFIGS", str(folder))

    def write(**sections):
        (folder / FILE).write_text(json.dumps(few(**sections)), encoding="utf-8")

    write()
    return write


def labelled_balls(folder):
    """Write three balls and take in their labels; return the studies."""
    scans, labels = write_balls(folder, 3)
    done = run("labels", "import", labels, "--studies", scans, "--map", "1=ball", "--user", "ann")
    assert done.exit_code == 0, done.output
    return scans


@pytest.fixture
def configs(tmp_path, monkeypatch):
    return few_steps(tmp_path / "configs", monkeypatch)


@pytest.fixture
def studies(tmp_path, configs):
    return labelled_balls(tmp_path)


def trained_once(folder, *command, said):
    """Return labelled studies after a training, to be copied: it takes ten seconds."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        few_steps(folder / "configs", monkeypatch)
        studies = labelled_balls(folder)
        done = run("train", *command, "--studies", studies, "--device", "cpu")
    assert done.exit_code == 0 and said in done.output, done.output
    return studies


@pytest.fixture(scope="package")
def learnt_once(tmp_path_factory):
    folder, command = tmp_path_factory.mktemp("learnt"), ("automatic", "--labels", "ball")
    return trained_once(folder, *command, said="Network 1 segments without prompts")


@pytest.fixture(scope="package")
def tuned_once(tmp_path_factory):
    return trained_once(tmp_path_factory.mktemp("tuned"), "finetune", said="Version 1 is used")


@pytest.fixture
def learnt(learnt_once, configs, tmp_path):
    """Studies of which an automatic network learnt three labels, and a fourth scan without one."""
    studies = Path(shutil.copytree(learnt_once, tmp_path / "studies"))
    shutil.copyfile(studies / "ball_1.nii.gz", studies / "new.nii.gz")
    return studies


@pytest.fixture
def tuned(tuned_once, configs, tmp_path):
    """Studies whose three labels fine-tuned the model."""
    return Path(shutil.copytree(tuned_once, tmp_path / "studies"))
