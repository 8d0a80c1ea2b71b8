"""Run `slicecast segment` on a sample of every real set, from one click and from one painted slice.

    python -m slicecast_lab.benchmarks.command --page docs/results/every-set.md

Each row is the command itself, in a process of its own; the label only says where to click and what the Dice is.
Sets without a label are clicked in the middle. One case a set says that a format works, not how well the model does.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from slicecast.config import data_dir
from slicecast.prompts.simulate import next_click
from slicecast.volume import Reorientation, SliceStack, choose_axis, read_volume, write_mask

SAMPLES = {
    "hippocampus (NIfTI, MR)": ("hippocampus/images/hippocampus_001.nii.gz", "hippocampus/labels/{name}", (1, 2)),
    "ACDC left ventricle (NIfTI, cine MR)": ("acdc/images/*", "acdc/labels/{name}", (3,)),
    "BraTS whole tumour (NIfTI, float MR)": ("brats/images/*", "brats/labels/{name}", (1, 2, 3, 4)),
    "RECIST lesion (NIfTI, windowed CT)": ("recist/images/*", "recist/labels/{name}", (1,)),
    "spleen (NIfTI, 3 mm CT)": (
        "totalsegmentator/example_ct.nii.gz",
        "totalsegmentator/example_seg_fast_force_split.nii.gz",
        (1,),
    ),
    "brain tumour (NRRD, y flipped)": ("pyradiomics/brain1_image.nrrd", "pyradiomics/brain1_label.nrrd", (1,)),
    "breast (NRRD)": ("pyradiomics/breast1_image.nrrd", "pyradiomics/breast1_label.nrrd", (1,)),
    "head (DICOM, MR)": ("dicom/mr_head_vs_seg", None, ()),
    "prostate (DICOM, oblique MR)": ("dicom/mr_prostate_oblique", None, ()),
    "head (DICOM, CT with gaps and tilt)": ("dicom/ct_head_uneven_gaps_tilt", None, ()),
}
"""Title: image (the first that matches), label, label values; relative to SLICECAST_DATA."""

PAGE = """# One case of every set

`slicecast segment` with the bundled model, from one click and from one painted slice, on the slice where the structure
is largest. One case says that a format works, not how well the model does: for that see [accuracy](accuracy.md).

{table}

The warnings are about the scan itself (uneven gaps, gantry tilt). Machine: {cores} cores, no GPU. Date: {today}.
Commit: {commit}. Command: `python -m slicecast_lab.benchmarks.command --page docs/results/every-set.md`.
"""


def measure(title: str, folder: Path) -> dict:
    """Run one sample from a click and, with a label, from a painted slice."""
    pattern, label, values = SAMPLES[title]
    image = min(data_dir().glob(pattern))
    truth = None
    if label is not None:
        truth = np.isin(read_volume(data_dir() / label.format(name=image.name)).array, values)
    row = {"title": title, "size": " x ".join(map(str, read_volume(image).geometry.size_ijk))}
    click, painted = _prompts(image, truth)
    row["click"] = _run(image, ["--point", "it=" + ",".join(map(str, click))], truth, folder)
    if painted is not None:
        write_mask(folder / "painted.nii.gz", painted, read_volume(image).geometry)
        row["mask"] = _run(image, ["--mask", f"it={folder / 'painted.nii.gz'}"], truth, folder)
    return row


def _prompts(image: Path, truth: np.ndarray | None) -> tuple[list[int], np.ndarray | None]:
    """Return a click (i, j, k) and a mask [k, j, i] of the slice where the truth is largest."""
    geometry = read_volume(image).geometry
    if truth is None:
        return [n // 2 for n in geometry.size_ijk], None
    turn = Reorientation.of(geometry)
    axis = choose_axis(turn.geometry)
    stack = SliceStack(turn.to_canonical_array(truth), axis)
    n = max(range(stack.count), key=lambda k: stack.slice(k).sum())
    first = next_click(stack.slice(n), np.zeros_like(stack.slice(n)))
    if first is None:
        raise SystemExit(f"{image} has an empty label.")
    click = turn.to_source_ijk(axis.to_ijk(n, *first.index)[None])[0].tolist()
    painted = stack.assemble({n: stack.slice(n)})
    return click, np.ascontiguousarray(turn.to_source_array(painted))


def _run(image: Path, words: list[str], truth: np.ndarray | None, folder: Path) -> dict:
    out, report = folder / "out.nii.gz", folder / "report.json"
    command = [sys.executable, "-m", "slicecast.cli.main", "segment", str(image), "-o", str(out), "--json", str(report)]
    environment = os.environ | {"SLICECAST_MODEL": "sam2_nano"}
    done = subprocess.run([*command, *words], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command + words)} ended with {done.returncode}: {done.stderr}")
    said = json.loads(report.read_text())
    mask = read_volume(out).array > 0
    dice = None if truth is None else 2 * int((mask & truth).sum()) / max(1, int(mask.sum() + truth.sum()))
    return {"dice": dice, "voxels": int(mask.sum()), "seconds": said["seconds"]["total"], "warnings": said["warnings"]}


def table(rows: list[dict]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| set | voxels | Dice, one click | Dice, one mask | seconds, click / mask | warnings |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        runs = [row["click"], row.get("mask")]
        dice = [_number(run, "dice", "no label") for run in runs]
        seconds = " / ".join(_number(run, "seconds", "-") for run in runs)
        lines.append(
            f"| {row['title']} | {row['size']} | {dice[0]} | {dice[1]} | {seconds} | {len(row['click']['warnings'])} |"
        )
    return "\n".join(lines)


def _number(run: dict | None, key: str, otherwise: str) -> str:
    return otherwise if run is None or run[key] is None else f"{run[key]:.2f}"


def main() -> None:
    """Measure all samples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path, help="write the table here, with machine, date and commit")
    page = parser.parse_args().page
    with tempfile.TemporaryDirectory() as name:
        text = table([measure(title, Path(name)) for title in SAMPLES])
    print(text)
    if page:
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
        today, cores = datetime.datetime.now(datetime.UTC).date(), os.cpu_count()
        page.write_text(PAGE.format(table=text, cores=cores, today=today, commit=commit))


if __name__ == "__main__":
    main()
