"""Pages: tables that programs write, in text that people write."""

import pytest

from slicecast.errors import ConfigError
from slicecast_lab.evaluation.page import bullets, circumstances_table, markdown, source_line, write_blocks

MACHINE = {"cpu": "X", "cores": 2, "memory_gib": 8, "device": "cpu", "load": [1.5, 1, 1]}
MACHINE |= {"system": "Linux", "python": "3.11", "torch": "2"}
SAID = {"machine": MACHINE, "model": {"name": "m", "sha256": "0" * 64, "image_size": 128}}
SAID |= {"commit": "abc+", "command": "make results", "date": "2026-01-01 00:00 UTC"}


def test_only_blocks_are_written_again(tmp_path):
    page = tmp_path / "new" / "page.md"
    write_blocks(page, {"dice": "one"})
    page.write_text(f"# By hand\n\n{page.read_text()}\nA verdict.\n")
    write_blocks(page, {"dice": "two", "clicks": "three"})
    text = page.read_text()
    assert text.startswith("# By hand\n\n<!-- dice: ") and "A verdict.\n\n<!-- clicks: " in text
    assert "one" not in text and text.index("two") < text.index("A verdict.") < text.index("three")
    before = page.read_bytes()
    write_blocks(page, {"clicks": "three"})
    assert page.read_bytes() == before and [file.name for file in page.parent.iterdir()] == ["page.md"]


def test_a_block_without_end_is_refused(tmp_path):
    page = write_blocks(tmp_path / "page.md", {"dice": "one"})
    page.write_text(page.read_text().replace("<!-- end of dice -->", ""))
    with pytest.raises(ConfigError, match="end of dice"):
        write_blocks(page, {"dice": "two"})


def test_cells_are_taken_as_they_are():
    rows = [line.split("|")[1:-1] for line in markdown([{"a": "0.80", "b": "x"}, {"a": "1"}]).splitlines()]
    assert [[cell.strip() for cell in row] for row in (rows[0], rows[2], rows[3])] == [
        ["a", "b"],
        ["0.80", "x"],
        ["1", ""],
    ]
    assert bullets(["x", "y"]) == "* x\n* y"


def test_circumstances_are_told():
    text = circumstances_table(SAID)
    assert "`abc+` (and changes)" in text and "0" * 64 in text and "load average 1.5" in text
    assert "commit `abc+` by `make results`: X, 2 cores, 8 GiB" in source_line(SAID)
