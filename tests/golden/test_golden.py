"""What must not change by accident: commands, settings, routes, stored work and masks, as recorded in files/.

A deliberate change is recorded by `python tests/golden/update.py`, and its commit says why.
"""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import surface

FILES = Path(__file__).parent / "files"


def golden(name: str):
    return json.loads((FILES / name).read_text(encoding="utf-8"))


def test_no_command_is_missing():
    assert set(golden("commands.json")) <= set(surface.listed(surface.command("--help")))


def test_every_commands_help_is_as_before():
    assert surface.helps() == golden("help.json")


def test_every_setting_is_still_there():
    present = surface.yaml_keys()
    gone = {file: sorted(set(keys) - set(present.get(file, ()))) for file, keys in golden("yaml_keys.json").items()}
    assert {file: keys for file, keys in gone.items() if keys} == {}


def test_masks_are_the_same_byte_for_byte():
    assert surface.masks() == golden("masks.json")


def test_stored_work_of_an_earlier_version_gives_what_it_gave(tmp_path):
    assert surface.replayed(tmp_path / "copy", FILES) == golden("recordings.json")


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden") / "server"
    with surface.server(folder) as client:
        yield client


def test_routes_and_their_answers_are_described_as_before(running):
    assert running.get("/openapi.json").json() == golden("openapi.json")


def test_answers_to_monai_label_clients_are_the_same(running, tmp_path):
    assert surface.infer_masks(running, tmp_path) == golden("infer_masks.json")
    assert surface.metric_names(running) == golden("metrics.json")
