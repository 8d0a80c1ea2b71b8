"""Nothing is lost when a file is replaced."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from slicecast.files import place_file, write_atomically
from slicecast.labelling.store.versions import keep_version

NOON = datetime(2024, 8, 5, 12, 0, 0, tzinfo=UTC)


def keep(current: Path, folder: Path) -> Path | None:
    return keep_version(current, folder, extension=".nii.gz", info={"client_id": "anna"}, now=NOON)


def test_versions_of_one_second_get_numbers(tmp_path):
    current, folder = tmp_path / "a.nii.gz", tmp_path / "versions"
    for content in (b"one", b"two", b"three"):
        write_atomically(current, content)
        keep(current, folder)
    files = sorted(folder.glob("*.nii.gz"))
    assert [file.name for file in files] == [f"20240805T120000Z-{n}.nii.gz" for n in (1, 2, 3)]
    assert [file.read_bytes() for file in files] == [b"one", b"two", b"three"]
    assert json.loads((folder / "20240805T120000Z-1.nii.gz.json").read_text()) == {"client_id": "anna"}


def test_nothing_to_keep(tmp_path):
    assert keep(tmp_path / "absent.nii.gz", tmp_path / "versions") is None
    assert not (tmp_path / "versions").exists()


def test_without_hard_links_it_is_copied(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    write_atomically(tmp_path / "a.nii.gz", b"one")
    kept = keep(tmp_path / "a.nii.gz", tmp_path / "versions")
    assert kept.read_bytes() == b"one"


def test_a_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    target, source = tmp_path / "label", tmp_path / "new"
    target.write_bytes(b"old")
    source.write_bytes(b"new")

    def crash(_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="No space"):
        place_file(source, target)
    assert target.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["label", "new"]
