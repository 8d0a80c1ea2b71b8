"""The whole way, headless: start the server, annotate the sample data through MONAI Label's client, look at the result.

`python -m slicecast.demo.demo` prints a table, writes `build/demo/overview.png` and `results.json`, and exits with
a status other than 0 when anything failed: the server, an answer, a stored label, the count of labelled images, or
masks that are not worth having. The truth plays the annotator's eye; clicks follow `prompts.simulate`: the deepest
point of the largest error.
"""

import json
import logging
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from monailabel.client import MONAILabelClient

from slicecast.demo.server_process import RunningServer, serving
from slicecast.errors import ConfigError, Conflict, SlicecastError, UnknownImage
from slicecast.inference.pictures import new_figure, outline, show_slice
from slicecast.models.registry import load_registry
from slicecast.prompts.simulate import Click, next_click
from slicecast.volume import (
    Geometry,
    Reorientation,
    SliceStack,
    Volume,
    choose_axis,
    choose_window,
    normalise,
    read_volume,
    write_mask,
)
from slicecast.volume.metrics import dice

logger = logging.getLogger(__name__)

REPOSITORY = Path(__file__).resolve().parents[3]
GOOD_DICE = 0.9  # The annotator is content with this
MEAN_DICE_AT_LEAST = 0.3  # Below this the masks are noise: something is broken, whatever the model

COLUMNS = 4
TRUTH, RESULT = "#2ecc71", "#ff3b6b"


@dataclass(frozen=True, slots=True, eq=False)
class SampleCase:
    """What the annotator knows of one image."""

    id: str
    volume: Volume
    truth: np.ndarray  # uint8 [k, j, i], on the image's grid
    names: Mapping[int, str]  # the structure of each value in `truth`

    @property
    def present(self) -> dict[int, str]:
        """The structures that this image shows."""
        return {value: name for value, name in self.names.items() if (self.truth == value).any()}


@dataclass(frozen=True, slots=True, eq=False)
class ObjectRecord:
    """How one structure of one image went; `mask` is bool [k, j, i]."""

    case: str
    name: str
    clicks: tuple[Click, ...]
    dice: tuple[float, ...]
    seconds: tuple[float, ...]
    mask: np.ndarray = field(repr=False)

    @property
    def final_dice(self) -> float:
        """Dice after the last click; 0 without any."""
        return self.dice[-1] if self.dice else 0.0


Done = list[tuple[SampleCase, list[ObjectRecord]]]


@dataclass(frozen=True, slots=True)
class Annotator:
    """A person at a client."""

    client: MONAILabelClient
    folder: Path  # for files on the way
    most_clicks: int = 5  # per structure

    def work(self, case_of: Callable[[str], SampleCase]) -> Done:
        """Annotate and submit what the server offers, until it offers nothing more."""
        done: Done = []
        while sample := self.client.next_sample("first", {}):
            case = case_of(sample["id"])
            if case.id in [earlier.id for earlier, _ in done]:
                raise Conflict(f"The server offers '{case.id}' again, although its label was submitted.")
            records = self.annotate(case)
            self.submit(case, records)
            done.append((case, records))
        return done

    def annotate(self, case: SampleCase) -> list[ObjectRecord]:
        """Click every structure: first all at once, then each on its own."""
        records = self.click_all(case)
        return [self._refine(case, value, records[name]) for value, name in case.present.items()]

    def submit(self, case: SampleCase, records: list[ObjectRecord]) -> None:
        """Save the masks as the image's final label, and look whether the server has just that."""
        merged = merge(case, records)
        file = write_mask(self.folder / f"{case.id}.nii.gz", merged, case.volume.geometry)
        info = [{"name": name, "idx": value} for value, name in case.present.items()]
        self.client.save_label(case.id, str(file), tag="final", params={"label_info": info})
        stored = read_volume(self.client.download_label(case.id, "final"))
        if not np.array_equal(stored.array, merged):
            raise Conflict(f"The stored label of '{case.id}' is not the one that was submitted.")

    def click_all(self, case: SampleCase, *, model: str = "sam2") -> dict[str, ObjectRecord]:
        """Give every structure its first click, in one request of a model for several labels."""
        nothing = np.zeros(case.truth.shape, bool)
        clicks = {name: _click(case, value, nothing) for value, name in case.present.items()}
        params = {name: [list(click.index)] for name, click in clicks.items() if click}
        mask, answer, seconds = self._infer(model, case, params)
        found = {name: mask == answer["objects"][name]["value"] for name in params}
        return {
            name: _with(_empty(case, name), click, found[name], truth=case.truth == value, seconds=seconds)
            for (value, name), click in zip(case.present.items(), clicks.values(), strict=True)
            if click
        }

    def _refine(self, case: SampleCase, value: int, record: ObjectRecord) -> ObjectRecord:
        """Correct one structure until it is good, nothing is left to correct, or patience ends."""
        while record.final_dice < GOOD_DICE and len(record.clicks) < self.most_clicks:
            click = _click(case, value, record.mask)
            if click is None or click in record.clicks:
                return record
            clicks = (*record.clicks, click)
            params = {
                "label": record.name,
                "foreground": [list(c.index) for c in clicks if c.positive],
                "background": [list(c.index) for c in clicks if not c.positive],
            }
            mask, _, seconds = self._infer("sam2_single", case, params)
            record = _with(record, click, mask != 0, truth=case.truth == value, seconds=seconds)
        return record

    def _infer(self, model: str, case: SampleCase, params: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any], float]:
        start = time.perf_counter()
        file, answer = self.client.infer(model, case.id, {**params, "result_extension": ".nrrd"})
        seconds = time.perf_counter() - start
        volume = read_volume(file)
        Path(file).unlink()
        _require_same_grid(volume.geometry, case)
        return volume.array, answer, seconds


def merge(case: SampleCase, records: list[ObjectRecord]) -> np.ndarray:
    """Put the masks into one uint8 array [k, j, i] with the truth's values; a later structure wins."""
    merged = np.zeros(case.truth.shape, np.uint8)
    values = {name: value for value, name in case.names.items()}
    for record in records:
        merged[record.mask] = values[record.name]
    return merged


def _click(case: SampleCase, value: int, mask: np.ndarray) -> Click | None:
    return next_click(case.truth == value, mask, spacing=case.volume.geometry.spacing_mm)


def _empty(case: SampleCase, name: str) -> ObjectRecord:
    return ObjectRecord(case.id, name, (), (), (), np.zeros(case.truth.shape, bool))


def _with(record: ObjectRecord, click: Click, mask: np.ndarray, *, truth: np.ndarray, seconds: float) -> ObjectRecord:
    """Add a click and what came of it; a structure is judged by its last mask, better or worse."""
    return replace(
        record,
        clicks=(*record.clicks, click),
        dice=(*record.dice, dice(truth, mask)),
        seconds=(*record.seconds, seconds),
        mask=mask,
    )


def _require_same_grid(geometry: Geometry, case: SampleCase) -> None:
    differences = geometry.differences(case.volume.geometry)
    if differences:
        raise UnknownImage(f"The answer for '{case.id}' lies on another grid: {'; '.join(differences)}.")


@dataclass(frozen=True, slots=True)
class SampleData:
    """A folder with `studies/`, `truth/` and `dataset.json`."""

    folder: Path

    @property
    def names(self) -> dict[int, str]:
        """The structures by value."""
        return {value: name for name, value in self._described()["labels"].items() if value != 0}

    def case(self, image_id: str) -> SampleCase:
        """Read an image and its truth."""
        volume = read_volume(self.folder / "studies" / f"{image_id}.nii.gz")
        truth = read_volume(self.folder / "truth" / f"{image_id}.nii.gz")
        return SampleCase(image_id, volume, truth.array, self.names)

    def _described(self) -> dict[str, Any]:
        file = self.folder / "dataset.json"
        if not file.is_file():
            command = "python -m slicecast_lab.generated.sample_data"
            raise ConfigError(f"There is no {file}. Make the sample data: {command}.")
        return json.loads(file.read_text(encoding="utf-8"))


def run_demo(data: SampleData, *, output: Path, clicks: int, model: str = "") -> list[str]:
    """Annotate a copy of the data through a real server; print, write, and return what went wrong."""
    output.mkdir(parents=True, exist_ok=True)
    options = ["--labels", ",".join(data.names.values()), *(["--model", model] if model else [])]
    with tempfile.TemporaryDirectory(prefix="slicecast-demo-") as name:
        work = Path(name)
        studies = copy_images(data.folder / "studies", work / "studies")
        with serving(studies, log=output / "server.log", options=options) as server:
            typer.echo(f"server at {server.url} after {server.start_s:.1f} s")
            done, problems = _annotate(server, data, work, clicks)
            cubes = _clicked_in_cubes(server, done, work)
        problems += _labels_missing_on_disk(studies)
    _report(done, output, cubes)
    return problems + _too_bad(done)


def copy_images(source: Path, target: Path) -> Path:
    """Copy the images alone: what was labelled on them before is not part of the proof."""
    target.mkdir()
    for file in source.glob("*.nii.gz"):
        shutil.copy(file, target)
    return target


def _annotate(server: RunningServer, data: SampleData, work: Path, clicks: int) -> tuple[Done, list[str]]:
    client = MONAILabelClient(server.url, tmpdir=str(work), client_id="demo")
    info = client.info()
    typer.echo(
        f"{info['name']} {info['version']}: models {', '.join(info['models'])}; labels {', '.join(info['labels'])}"
    )
    done = Annotator(client, work, most_clicks=clicks).work(data.case)
    status = client.info()["datastore"]
    wanted = {"total": status["total"], "completed": status["total"]}
    wrong = {key: status[key] for key in wanted} != wanted or status["total"] != len(done)
    return done, [f"the server counts {status}, but {len(done)} images were submitted"] if wrong else []


def _clicked_in_cubes(server: RunningServer, done: Done, work: Path) -> dict[str, list[ObjectRecord]]:
    """Ask each volumetric model that the server lists, alone and with SAM 2, for every structure from one click."""
    client = MONAILabelClient(server.url, tmpdir=str(work), client_id="demo")
    cubes = {name for name, spec in load_registry().items() if spec.volumetric}
    listed = [name for name in client.info()["models"] if cubes & {*name.split("+")}]
    annotator = Annotator(client, work)
    return {n: [r for case, _ in done for r in annotator.click_all(case, model=n).values()] for n in listed}


def _labels_missing_on_disk(studies: Path) -> list[str]:
    missing = [
        image.name for image in studies.glob("*.nii.gz") if not (studies / "labels" / "final" / image.name).is_file()
    ]
    return [f"no label was stored for {', '.join(missing)}"] if missing else []


def _too_bad(done: Done) -> list[str]:
    scores = [record.final_dice for _, records in done for record in records]
    if not scores:
        return ["nothing was annotated"]
    mean = statistics.mean(scores)
    return [f"the mean Dice {mean:.2f} is below {MEAN_DICE_AT_LEAST}"] if mean < MEAN_DICE_AT_LEAST else []


def _report(done: Done, output: Path, cubes: Mapping[str, list[ObjectRecord]]) -> None:
    records = [record for _, records in done for record in records]
    if not records:
        return
    typer.echo(_row("case", "structure", "clicks", "Dice after 1", "Dice", "s/click"))
    for record in records:
        seconds = f"{statistics.mean(record.seconds):.2f}"
        first, last = f"{record.dice[0]:.3f}", f"{record.final_dice:.3f}"
        typer.echo(_row(record.case, record.name, str(len(record.clicks)), first, last, seconds))
    for name, own in {"all": records, **cubes}.items():
        typer.echo(_mean_row(name, own))
    (output / "results.json").write_text(json.dumps([_as_json(record) for record in records], indent=1) + "\n")
    typer.echo(f"picture: {draw_overview(done, output / 'overview.png')}")


def _mean_row(name: str, records: list[ObjectRecord]) -> str:
    means = [statistics.mean(record.dice[place] for record in records) for place in (0, -1)]
    clicks = sum(len(record.clicks) for record in records)
    pace = statistics.mean(second for record in records for second in record.seconds)
    return _row(name, f"{len(records)} structures", str(clicks), f"{means[0]:.3f}", f"{means[1]:.3f}", f"{pace:.2f}")


def _row(case: str, name: str, clicks: str, first: str, last: str, seconds: str) -> str:
    return f"{case:<16} {name:<20} {clicks:>6} {first:>13} {last:>7} {seconds:>8}"


def _as_json(record: ObjectRecord) -> dict[str, Any]:
    return {
        "case": record.case,
        "structure": record.name,
        "clicks": [[*click.index, click.positive] for click in record.clicks],
        "dice": [round(value, 4) for value in record.dice],
        "seconds": [round(value, 3) for value in record.seconds],
    }


def draw_overview(done: Done, file: Path) -> Path:
    """Draw a row of slices for each case, through its structures from one end to the other; return `file`."""
    figure = new_figure(3 * COLUMNS, 3 * len(done) + 0.4)
    rows = figure.subplots(len(done), COLUMNS, squeeze=False)
    for axes, (case, records) in zip(rows, done, strict=True):
        _draw_case(axes, case, records)
    handles = [Line2D([], [], color=TRUTH, label="truth"), Line2D([], [], color=RESULT, label="result")]
    figure.legend(handles=handles, loc="outside upper right", ncols=2, frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=100)
    return file


def _draw_case(axes: Sequence[Axes], case: SampleCase, records: list[ObjectRecord]) -> None:
    to_canonical = Reorientation.of(case.volume.geometry)
    axis = choose_axis(to_canonical.geometry)
    scan, truth, result = (
        SliceStack(to_canonical.to_canonical_array(array), axis)
        for array in (case.volume.array, case.truth, merge(case, records))
    )
    window = choose_window(case.volume)
    for plot, n in zip(axes, _slices_through(truth), strict=True):
        show_slice(plot, normalise(scan.slice(n), window), axis=axis, geometry=to_canonical.geometry)
        for stack, colour in ((truth, TRUTH), (result, RESULT)):
            outline(plot, stack.slice(n), colours=[colour], width=0.9)
        plot.set_title(f"\n{axis.name.lower()} slice {to_canonical.to_source_slice(axis, n)}", fontsize=8)
    scores = ", ".join(f"{record.name} {record.final_dice:.2f}" for record in records)
    heading = f"{case.id}: {scores}\n"  # stands in the line that the slices' titles leave free
    axes[0].text(0, 1.02, heading, transform=axes[0].transAxes, fontsize=9, va="bottom").set_in_layout(False)


def _slices_through(truth: SliceStack) -> list[int]:
    """Choose COLUMNS slices at equal distances inside the structures' extent."""
    shown = [n for n in range(truth.count) if truth.slice(n).any()] or list(range(truth.count))
    return [shown[round((column + 0.5) / COLUMNS * (len(shown) - 1))] for column in range(COLUMNS)]


def main(
    data: Annotated[Path, typer.Option(help="Folder with studies/, truth/ and dataset.json.")] = REPOSITORY
    / "sample-data",
    output: Annotated[Path, typer.Option(help="Folder for the picture and the numbers.")] = Path("build/demo"),
    clicks: Annotated[int, typer.Option(min=1, help="At most so many clicks on a structure.")] = 5,
    model: Annotated[str, typer.Option(help="A name of `slicecast models list`.")] = "",
) -> None:
    """Annotate the sample data through a real server, and prove that it worked."""
    try:
        problems = run_demo(SampleData(data), output=output, clicks=clicks, model=model)
    except (SlicecastError, OSError) as error:
        problems = [str(error)]
    except Exception as error:  # the outermost boundary: MONAI Label's client raises its own, with the text in `msg`
        logger.debug("the demo failed", exc_info=True)
        problems = [f"{type(error).__name__}: {getattr(error, 'msg', error)}"]
    for problem in problems:
        typer.echo(f"FAILED: {problem}", err=True)
    if problems:
        sys.exit(1)
    typer.echo("everything worked")


if __name__ == "__main__":
    typer.run(main)
