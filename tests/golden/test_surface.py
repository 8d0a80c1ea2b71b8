"""What must not change by accident, as recorded in files/: commands, settings, routes.

A deliberate change is recorded by `python tests/golden/update.py`, and its commit says why.
"""

import json
import sys
from pathlib import Path

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


def test_routes_and_their_answers_are_described_as_before(running):
    assert running.get("/openapi.json").json() == golden("openapi.json")
