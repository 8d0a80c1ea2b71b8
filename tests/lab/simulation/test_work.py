"""Tasks: over cores and machines, remembered, and the same everywhere."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from slicecast.errors import ConfigError
from slicecast_lab.simulation import work
from slicecast_lab.simulation.slices import SliceTask
from slicecast_lab.simulation.work import FAKE, SOURCES, Setup, Workers, carry_out, program_digest

SETUP = Setup(FAKE, "cpu")


@dataclass(frozen=True, slots=True)
class Square:
    """Leaves a mark each time it is run."""

    number: int
    marks: Path

    @property
    def name(self):
        return str(self.number)

    @property
    def key(self):
        return "square", self.number

    def run(self, service):
        with self.marks.open("a") as out:
            out.write(f"{self.number}\n")
        return [self.number**2]


def test_results_come_in_order_and_progress_is_told(tmp_path):
    told = []
    tasks = [Square(n, tmp_path / "marks") for n in (3, 1, 2)]
    assert carry_out(tasks, SETUP, Workers(), progress=lambda *said: told.append(said)) == [[9], [1], [4]]
    assert told == [(0, 3, ""), (1, 3, "3"), (2, 3, "1"), (3, 3, "2")]


def test_what_is_done_is_not_done_again_even_after_a_crash(tmp_path):
    store, marks = tmp_path / "deep" / "done.jsonl", tmp_path / "marks"
    tasks = [Square(n, marks) for n in range(4)]
    carry_out(tasks[:2], SETUP, Workers(), store=store)
    store.write_text(store.read_text() + '\n{"name": "cut o')
    assert carry_out(tasks, SETUP, Workers(), store=store) == [[0], [1], [4], [9]]
    assert carry_out(tasks, SETUP, Workers(), store=store) == [[0], [1], [4], [9]]
    assert marks.read_text().split() == ["0", "1", "2", "3"]


def test_other_weights_are_other_results(tmp_path):
    store, marks = tmp_path / "done.jsonl", tmp_path / "marks"
    for setup in (SETUP, Setup("sam2_nano", "cpu")):
        carry_out([Square(1, marks)], setup, Workers(), store=store)
    assert marks.read_text().split() == ["1", "1"]


def test_no_processes_are_refused():
    with pytest.raises(ConfigError, match="0 processes"):
        Workers(0)


@pytest.mark.slow
def test_cores_and_a_ray_cluster_give_the_same_bytes(cases):
    """Starting Ray takes half a minute and more."""
    ray = pytest.importorskip("ray", reason='Ray is not installed: pip install ".[ray]"')
    tasks = [SliceTask(files, ("strided", "random"), 1) for files in cases[:2]]
    alone, side_by_side = carry_out(tasks, SETUP, Workers(1)), carry_out(tasks, SETUP, Workers(2))
    assert alone == side_by_side == carry_out(tasks, SETUP, Workers(2, "auto"))
    assert not ray.is_initialized()


def test_a_changed_program_is_another_result_but_not_its_pictures(tmp_path, monkeypatch):
    files = [
        tmp_path / name
        for name in ("product/engine/a.py", "lab/simulation/b.py", "lab/simulation/tables.py", "product/server/c.py")
    ]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    monkeypatch.setattr(work, "SOURCES", (tmp_path / "product", tmp_path / "lab"))
    digests = [program_digest.__wrapped__()]
    for file in files:
        file.write_text("x = 1\n")
        digests.append(program_digest.__wrapped__())
    assert len(set(digests[:3])) == 3 and len(set(digests[2:])) == 1
    assert [source.name for source in SOURCES] == ["slicecast", "slicecast_lab"]
