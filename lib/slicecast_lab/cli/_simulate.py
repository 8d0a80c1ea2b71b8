"""What `slicecast lab simulate` does once its input is checked; PyTorch takes seconds to import."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from slicecast_lab.cli._progress import with_progress
from slicecast_lab.evaluation.cases import CaseFiles, Split
from slicecast_lab.evaluation.report import write_json
from slicecast_lab.simulation.annotator import Robot
from slicecast_lab.simulation.experiments import simulate_joint, simulate_slices, simulate_volumes
from slicecast_lab.simulation.learner import Labelling
from slicecast_lab.simulation.slices import DEFAULTS as SLICES
from slicecast_lab.simulation.slices import SliceTask
from slicecast_lab.simulation.tables import draw_report, tables_of
from slicecast_lab.simulation.volumes import DEFAULTS as VOLUMES
from slicecast_lab.simulation.volumes import VolumePlan
from slicecast_lab.simulation.work import Setup, SimulationTask, Workers, carry_out

JOINT = ("random", "strat_random", "coverage")  # Volume strategies of the joint experiment, where none are named
PAGE_WIDTH = 200  # Of tables that go into a file

_ANY = CaseFiles("", Path(), Path(), (), "")  # Stands for a case where only settings matter


@dataclass(frozen=True, slots=True)
class Play:
    """The robot and where its work is done."""

    setup: Setup
    workers: Workers
    store: Path | None  # keeps what is done
    robot: Robot
    strokes: str  # how it corrects a slice
    corrections: int  # slices corrected after the first

    def slices(self, cases: Split, strategies: Sequence[str]) -> dict[str, Any]:
        """Compare which slice comes next; no names are the usual ones."""
        task = SliceTask(_ANY, tuple(strategies or SLICES), self.corrections, self.robot, self.strokes)
        return simulate_slices(list(cases.test), list(cases.pool), task, self.setup, self._work)

    def volumes(self, cases: Split, strategies: Sequence[str], budgets: Sequence[int], *, seeds: int) -> dict[str, Any]:
        """Compare which volume comes next, labelled by one slice's mask."""
        plan = VolumePlan(tuple(strategies or VOLUMES), tuple(budgets), seeds, Labelling(robot=self.robot))
        return simulate_volumes(cases, plan, self.setup, self._work)

    def joint(
        self,
        cases: Split,
        strategies: Sequence[str],
        slice_strategies: Sequence[str],
        budgets: Sequence[int],
        *,
        seeds: int,
    ) -> dict[str, Any]:
        """Compare both at once."""
        labelling = Labelling("", self.corrections, self.robot, self.strokes)
        plan = VolumePlan(tuple(strategies or JOINT), tuple(budgets), seeds, labelling)
        return simulate_joint(cases, plan, tuple(slice_strategies), self.setup, self._work)

    def _work(self, tasks: Sequence[SimulationTask]) -> list[Any]:
        def carry(tell: Any) -> list[Any]:
            return carry_out(tasks, self.setup, self.workers, store=self.store, progress=tell)

        return with_progress(len(tasks), carry)


def hand_over(report: dict[str, Any], json_file: Path | None, plot: Path | None) -> None:
    """Print tables; write JSON and picture where they are wanted."""
    console = Console(width=None if sys.stdout.isatty() else PAGE_WIDTH)
    for table in tables_of(report):
        console.print(table.rich())
    if json_file is not None:
        write_json(report, json_file)
    if plot is not None:
        draw_report(report, plot)
