"""What must not change by accident, as recorded in files/: stored work and masks. The surface is in test_surface.py.

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


def test_masks_are_the_same_byte_for_byte():
    assert surface.masks() == golden("masks.json")


def test_stored_work_of_an_earlier_version_gives_what_it_gave(tmp_path):
    assert surface.replayed(tmp_path / "copy", FILES) == golden("recordings.json")


def test_answers_to_monai_label_clients_are_the_same(running, tmp_path):
    assert surface.infer_masks(running, tmp_path) == golden("infer_masks.json")
    assert surface.metric_names(running) == golden("metrics.json")
