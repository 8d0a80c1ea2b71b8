"""Look after a campaign: progress, the chain of events, export, report, hidden gold cases."""

from __future__ import annotations

import getpass
import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from slicecast.campaign.state import ReadingTask, State, Status
from slicecast.cli._checks import Studies, check_output
from slicecast.cli.export import end_with_skipped
from slicecast.errors import ConfigError, Conflict, NotFound

if TYPE_CHECKING:
    from slicecast.campaign.campaign import Campaign
    from slicecast.campaign.export import LabelledCase
    from slicecast.dicom.catalogue import Catalogue
    from slicecast.dicom.export import StoredLabel

app = typer.Typer(add_completion=False, no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Head = Annotated[str, typer.Option(metavar="N:DIGEST", help="A head noted earlier, which the chain must still hold.")]
Layout = Annotated[Literal["msd", "nnunet", "csv"], typer.Option("--format", help="Of what is written.")]
Out = Annotated[Path, typer.Option("-o", "--out", metavar="PATH", help="New folder (csv: a file).")]
Statuses = Annotated[str, typer.Option("--status", metavar="LIST", help="Which cases: approved,submitted.")]
Name = Annotated[str, typer.Option(help="Of the data set.")]
Modality = Annotated[str, typer.Option(help="CT, MRI ...; by default what the scans say.")]


@app.command()
def status(studies: Studies, as_json: AsJson = False) -> None:
    """Show progress, people and agreement.

    \b
    Example: slicecast campaign status --studies scans
    """
    state = _campaign(studies).state()
    from slicecast.campaign.report import agreements, people, progress

    if as_json:
        counts = {"events": state.number, "head": _head(state), "progress": progress(state)}
        typer.echo(json.dumps({**counts, "people": [person.who for person in people(state)]}))
        return
    for word, count in progress(state).items():
        typer.echo(f"{count:6d} {word}")
    table = Table("who", "cases", "median minutes", "total minutes")
    for person in people(state):
        minutes = "" if person.minutes is None else f"{person.minutes:.1f}"
        table.add_row(person.who, str(person.cases), minutes, f"{person.total_minutes:.0f}")
    Console().print(table)
    for a in agreements(state, against=(ReadingTask.SECOND, ReadingTask.GOLD)):
        distance = "" if a.hd95_mm is None else f", HD95 {a.hd95_mm:.1f} mm"
        typer.echo(f"{a.case}: {a.who} against {a.against}: Dice {a.dice:.3f}, NSD {a.nsd:.3f}{distance}")
    typer.echo(f"head {_head(state)}")


@app.command()
def verify(studies: Studies, head: Head = "") -> None:
    """Check that no event was changed, removed or moved; ends with status 1 where one was.

    \b
    Examples:
      slicecast campaign verify --studies scans
      slicecast campaign verify --studies scans --head 120:5f1c...
    """
    noted = _head_of(head) if head else None
    campaign = _campaign(studies)
    damage = campaign.verify()
    if damage is not None:
        raise Conflict(f"The chain of events is broken: {damage.what}. Restore the database from a backup.")
    if noted:
        _require_head(campaign, *noted)
    typer.echo(f"{campaign.state().number} events, the chain holds. Head {_head(campaign.state())}")


@app.command()
def export(
    studies: Studies,
    out: Out,
    layout: Layout = "nnunet",
    statuses: Statuses = "approved,submitted",
    name: Name = "slicecast",
    modality: Modality = "",
) -> None:
    """Write the labels as a training set (Decathlon or nnU-Net layout), or all cases as a table.

    \b
    Examples:
      slicecast campaign export --studies scans -o Dataset501_Spleen --name Spleen --modality CT
      slicecast campaign export --studies scans --format msd --status approved -o Task01_Spleen
      slicecast campaign export --studies scans --format csv -o cases.csv
    """
    wanted = _wanted(statuses)
    check_output(out if layout == "csv" else out / "dataset.json", makes_folders=True)
    state = _campaign(studies).state()
    from slicecast.campaign.export import export_csv, export_dataset

    if layout == "csv":
        typer.echo(f"{export_csv(state, out)} cases in {out}")
        return
    with tempfile.TemporaryDirectory() as work:
        cases = _labelled(studies, state, wanted, work=Path(work))
        done = export_dataset(cases, out, layout=layout, name=name, modality=modality)
    typer.echo(f"{done.content['numTraining']} cases in {out}")
    end_with_skipped(done.skipped)


@app.command()
def report(studies: Studies, out: Out) -> None:
    """Write progress, people, agreement and curves to one HTML or PNG file.

    \b
    Example: slicecast campaign report --studies scans -o report.html
    """
    check_output(out, (".html", ".png"), makes_folders=True)
    state = _campaign(studies).state()
    from slicecast.campaign.report import write_report

    file = write_report(state, out, title=f"Campaign {studies.resolve().name}")
    typer.echo(str(file))


@app.command()
def add_gold(
    studies: Studies,
    case: Annotated[str, typer.Argument(help="An image of the studies.")],
    truth: Annotated[Path, typer.Argument(help="Its true label.")],
) -> None:
    """Make a case a hidden gold one: everybody gets it once, and is compared with the truth.

    \b
    Example: slicecast campaign add-gold --studies scans case_07 truth/case_07.nii.gz
    """
    from slicecast.campaign.settings import FOLDER, keep_truth

    campaign = _campaign(studies)
    campaign.require(case)
    campaign.add_gold(case, getpass.getuser(), truth_sha256=keep_truth(studies / FOLDER, case, truth))
    typer.echo(f"{case} is a gold case now")


def _campaign(studies: Path) -> Campaign:
    from slicecast.campaign.campaign import existing_campaign  # takes a while, see main.py

    campaign = existing_campaign(studies)
    if campaign is None:
        raise NotFound(f"There is no campaign in {studies}. Serve that folder once, or give the right one.")
    return campaign


def _labelled(studies: Path, state: State, wanted: set[str], *, work: Path) -> list[LabelledCase]:
    from slicecast.campaign.export import read_modalities
    from slicecast.dicom.catalogue import Catalogue
    from slicecast.dicom.export import stored_labels

    chosen = {case.name for case in state.cases.values() if case.status in wanted and not case.gold}
    labels = [label for label in stored_labels(studies) if label.image_id in chosen]
    files = {label.image_id: label.image for label in labels if label.image is not None}
    catalogue = Catalogue(studies, lambda: files, work, skip=(studies / "labels",))
    modalities = read_modalities(studies)
    cases = [_labelled_case(label, studies, catalogue, modalities) for label in labels]
    readings = [state.case(case.name).reading(ReadingTask.ANNOTATE) for case in cases]
    return [replace(case, sha256=own.sha256 if own else "") for case, own in zip(cases, readings, strict=True)]


def _labelled_case(
    label: StoredLabel, studies: Path, catalogue: Catalogue, modalities: Mapping[str, str]
) -> LabelledCase:
    from slicecast.campaign.export import LabelledCase
    from slicecast.dicom.seg import named_values

    names = {value: name for name, value in named_values(label.info).items()}
    image = label.image or _series(label.image_id, studies, catalogue)
    modality = modalities.get(label.image_id, "")
    return LabelledCase(label.image_id, image, label.file, names, modality)


def _series(name: str, studies: Path, catalogue: Catalogue) -> Path:
    """Return the folder of a series; of a missing one a path that cannot be read, so that only its case fails."""
    series = catalogue.of_image(name)
    return studies / name if series is None else Path(series.scan_path())


def _wanted(text: str) -> set[str]:
    known = {str(status) for status in Status}
    words = {word.strip() for word in text.split(",") if word.strip()}
    if not words or words - known:
        raise ConfigError(f"--status {text!r} names no status. Known: {', '.join(sorted(known))}.")
    return words


def _head(state: State) -> str:
    return f"{state.number}:{state.digest}"


def _head_of(text: str) -> tuple[int, str]:
    number, _, digest = text.partition(":")
    if not (number.isdecimal() and int(number) > 0 and digest):
        raise ConfigError(f"--head {text!r} is no head. Give what `slicecast campaign verify` printed, N:DIGEST.")
    return int(number), digest


def _require_head(campaign: Campaign, number: int, digest: str) -> None:
    found = campaign.store.read(after=number - 1)
    if not found or found[0].digest != digest:
        raise Conflict(f"Event {number} is not the one noted: the chain was rewritten. Restore it from a backup.")
