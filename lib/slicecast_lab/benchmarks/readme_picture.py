"""Draw the README's picture: one click on one slice of a sample scan, and what the model makes of it in the volume.

`python -m slicecast_lab.benchmarks.readme_picture` writes `docs/images/overview.png`. The click is where an annotator
would click first, deepest inside the structure; everything red is the model's answer to that one click.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from slicecast.demo.annotator import SampleCase
from slicecast.demo.demo import REPOSITORY, SampleData
from slicecast.errors import PromptError
from slicecast.inference.pictures import new_figure, outline, show_slice, spread
from slicecast.inference.results import SegmentResult
from slicecast.inference.segment import SegmentRequest, SegmentService
from slicecast.prompts import ObjectPrompts, Point, PromptSet
from slicecast.prompts.simulate import next_click
from slicecast.volume import Reorientation, SliceAxis, SliceStack, normalise
from slicecast.volume.metrics import dice

ROWS, COLUMNS = 2, 4
RESULT, TRUTH, CLICK = "#ff3b6b", "#2ecc71", "#ffd166"


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """One structure of one case after one click.

    Args:
        case: image and truth.
        name: the structure.
        value: its number in the truth.
        click_ijk: the click, as stored.
        result: the answer; its mask holds 1.
    """

    case: SampleCase
    name: str
    value: int
    click_ijk: tuple[int, int, int]
    result: SegmentResult


def shoot(case: SampleCase, name: str, *, image: Path, service: SegmentService) -> Shot:
    """Click once on a structure and segment the volume.

    Raises:
        PromptError: the case does not show the structure.
    """
    value = next((value for value, shown in case.present.items() if shown == name), None)
    if value is None:
        raise PromptError(f"'{case.id}' does not show '{name}'. Choose one of {', '.join(case.present.values())}.")
    truth = case.truth == value
    click = next_click(truth, np.zeros_like(truth), spacing=case.volume.geometry.spacing_mm)
    assert click is not None  # the structure has voxels, so one of them lies deepest
    i, j, k = click.index
    prompts = PromptSet((ObjectPrompts(name, points=(Point((i, j, k)),)),))
    return Shot(case, name, value, (i, j, k), service.segment(SegmentRequest(image, prompts)))


def draw(shot: Shot, file: Path) -> Path:
    """Draw the clicked slice, large, beside slices from one end of the structure to the other; return `file`."""
    turn = Reorientation.of(shot.result.geometry)
    axis = SliceAxis[shot.result.axis.upper()]
    scan, truth, mask = (
        SliceStack(turn.to_canonical_array(array), axis)
        for array in (shot.case.volume.array, shot.case.truth == shot.value, shot.result.mask != 0)
    )
    clicked, x, y = axis.to_slice(turn.to_canonical_ijk(shot.click_ijk)).tolist()
    figure = new_figure(14, 4.9)
    left, right = np.asarray(figure.subfigures(1, 2, width_ratios=(1, 1.75)))
    large = left.subplots()
    pixels = _Pixels(shot, axis, turn, scan)
    pixels.show(large, clicked, "you click here")
    large.plot(x, y, marker="+", markersize=18, markeredgewidth=2.5, color=CLICK)
    shown = spread(SliceStack(truth.array | mask.array, axis), count=ROWS * COLUMNS, total=scan.count)
    for plot, n in zip(right.subplots(ROWS, COLUMNS).flat, shown, strict=False):
        pixels.show(plot, n, "")
        for stack, colour in ((truth, TRUTH), (mask, RESULT)):
            outline(plot, stack.slice(n), colours=[colour], width=1.2)
    for plot in figure.axes:  # a small structure leaves some free
        plot.set_axis_off()
    _explain(figure, shot)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=100)
    return file


@dataclass(frozen=True, slots=True, eq=False)
class _Pixels:
    """How a slice is shown: window, pixel shape, title."""

    shot: Shot
    axis: SliceAxis
    turn: Reorientation
    scan: SliceStack

    def show(self, plot: Axes, n: int, words: str) -> None:
        window = self.shot.result.window
        grey = self.scan.slice(n) if window is None else normalise(self.scan.slice(n), window)
        show_slice(plot, grey, axis=self.axis, geometry=self.turn.geometry)
        number = f"{self.shot.result.axis} slice {self.turn.to_source_slice(self.axis, n)}"
        plot.set_title(f"{number}: {words}" if words else number, fontsize=12 if words else 9)


def _explain(figure: Figure, shot: Shot) -> None:
    score = dice(shot.case.truth == shot.value, shot.result.mask != 0)
    lines = [
        Line2D([], [], color=RESULT, label=f"{shot.name}, result of one click: Dice {score:.2f}"),
        Line2D([], [], color=TRUTH, label="truth (generated scan)"),
    ]
    figure.legend(handles=lines, loc="outside lower center", ncols=2, frameon=False, fontsize=11)


def main(
    case: Annotated[str, typer.Option(help="A case of the sample data.")] = "ct_abdomen_a",
    structure: Annotated[str, typer.Option(help="One of its structures.")] = "kidney_left",
    model: Annotated[str, typer.Option(help="A name of `slicecast models list`; empty for the default.")] = "",
    output: Annotated[Path, typer.Option(help="The picture.")] = REPOSITORY / "docs" / "images" / "overview.png",
) -> None:
    """Draw the README's picture from a real result."""
    data = SampleData(REPOSITORY / "sample-data")
    image = data.folder / "studies" / f"{case}.nii.gz"
    shot = shoot(data.case(case), structure, image=image, service=SegmentService(model=model or None))
    seconds = shot.result.seconds["total"]
    typer.echo(f"{draw(shot, output)}: {structure} from a click on {shot.click_ijk}, {seconds:.1f} s")


if __name__ == "__main__":
    typer.run(main)
