"""Three labelled balls, and settings of a few steps."""

import json
import shutil

import pytest
from learning import few, run, write_balls

from slicecast.config import config_dir
from slicecast.training.finetune import FILE


@pytest.fixture
def configs(tmp_path, monkeypatch):
    """Settings of a few steps; change them by writing the file anew."""
    folder = tmp_path / "configs"
    shutil.copytree(config_dir(), folder)
    monkeypatch.setenv("SLICECAST_CONFIGS", str(folder))

    def write(**sections):
        (folder / FILE).write_text(json.dumps(few(**sections)), encoding="utf-8")

    write()
    return write


@pytest.fixture
def studies(tmp_path, configs):
    """Three labelled balls."""
    scans, labels = write_balls(tmp_path, 3)
    done = run("labels", "import", labels, "--studies", scans, "--map", "1=ball", "--user", "ann")
    assert done.exit_code == 0, done.output
    return scans
