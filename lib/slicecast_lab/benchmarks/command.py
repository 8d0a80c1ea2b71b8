"""What `slicecast segment` costs and finds as a command of its own: the bundled model, each run in a fresh process.

    python -m slicecast_lab.benchmarks.command                            # prints both tables
    python -m slicecast_lab.benchmarks.command --only sets --pages docs/results

* `cost`: three figures with a target: one click on a generated 512x512x300 CT whose organ spans 60 slices, one click on
  a 35x50x36 MR, and the start of the server.
* `sets`: a sample of every real set, from one click and from one painted slice. The label only says where to click and
  what the Dice is; sets without a label are clicked in the middle. One case says that a format works, not how well the
  model does.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slicecast.config import data_dir, project_dir
from slicecast.demo.server_process import serving
from slicecast.models.registry import bundled_spec
from slicecast.prompts.simulate import next_click
from slicecast.volume import (
    Geometry,
    Reorientation,
    SliceStack,
    Volume,
    choose_axis,
    read_volume,
    write_mask,
    write_volume,
)
from slicecast.volume.metrics import dice
from slicecast_lab.benchmarks.speed_scans import ORGAN_IJK, large_ct
from slicecast_lab.evaluation.page import markdown, source_line, write_blocks
from slicecast_lab.evaluation.provenance import command_line, provenance

REPEATS = 3
SMALL_IJK, SMALL_CLICK_IJK = (35, 50, 36), (17, 25, 18)

SAMPLES: dict[str, tuple[str, str, tuple[int, ...]]] = {
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
    "head (DICOM, MR)": ("dicom/mr_head_vs_seg", "", ()),
    "prostate (DICOM, oblique MR)": ("dicom/mr_prostate_oblique", "", ()),
    "head (DICOM, CT with gaps and tilt)": ("dicom/ct_head_uneven_gaps_tilt", "", ()),
}
"""Title: image (the first that matches), label or nothing, label values; relative to SLICECAST_DATA."""

Mask = NDArray[np.bool_]
Run = dict[str, Any]  # What the command reported, with the most memory that its process had, in GiB


def segment(image: Path, prompt: Sequence[str], out: Path) -> Run:
    """Run the command on an image."""
    report = out.with_name("report.json")
    command = [sys.executable, "-m", "slicecast.cli.main", "segment", str(image), "-o", str(out), "--json", str(report)]
    environment = os.environ | {"SLICECAST_MODEL": bundled_spec().name}
    process = subprocess.Popen([*command, *prompt], env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join([*command, *prompt])} ended with {process.returncode}.")
    return {**json.loads(report.read_text(encoding="utf-8")), "peak_gib": usage.ru_maxrss / 2**20}


def point(ijk: Sequence[int]) -> list[str]:
    """Return a click as the command takes it."""
    return ["--point", "object=" + ",".join(map(str, ijk))]


def small_mr(seed: int = 0) -> Volume:
    """Generate a small MR [k, j, i] float32 with one bright body in its middle."""
    rng = np.random.default_rng(seed)
    k, j, i = np.mgrid[: SMALL_IJK[2], : SMALL_IJK[1], : SMALL_IJK[0]].astype(np.float32)
    body = ((i - 17) / 7) ** 2 + ((j - 25) / 12) ** 2 + ((k - 18) / 10) ** 2 < 1
    array = (np.where(body, 160, 90) + rng.normal(0, 10, body.shape)).astype(np.float32)
    return Volume(array, Geometry(SMALL_IJK, (1.0, 1.0, 1.0)), {"modality": "MR"})


def cost_table(folder: Path) -> str:
    """Measure the three figures with a target."""
    ct, mr = (
        [
            segment(write_volume(folder / "image.nii.gz", volume), point(click), folder / "out.nii.gz")
            for _ in range(REPEATS)
        ]
        for volume, click in ((large_ct()[0], ORGAN_IJK), (small_mr(), SMALL_CLICK_IJK))
    )
    split = ", ".join(f"{name} {_seconds(ct, name):.1f}" for name in ("read", "encode", "propagate", "post"))
    slices = " / ".join(f"{np.median([run[f'slices_{what}'] for run in ct]):.0f}" for what in ("walked", "encoded"))
    rows = [
        ("one click, CT 512x512x300, answer, s", f"{_seconds(ct, 'total'):.1f} ({split})", "15"),
        ("the same, slices propagated / encoded", slices, ""),
        ("the same, peak resident memory, GiB", f"{max(run['peak_gib'] for run in ct):.2f}", "4"),
        ("one click, MR 35x50x36, answer, s", f"{_seconds(mr, 'total'):.2f}", "2"),
        ("start of the server, s", f"{np.median(list(_starts(folder))):.1f}", "20"),
    ]
    return markdown({"figure": name, f"median of {REPEATS}": value, "at most": most} for name, value, most in rows)


def _seconds(runs: Sequence[Run], part: str) -> float:
    return float(np.median([run["seconds"][part] for run in runs]))


def _starts(folder: Path) -> Iterator[float]:
    """Start the server on the sample data; yield the seconds until it answered."""
    for number in range(REPEATS):
        studies, app = project_dir("sample-data") / "studies", project_dir("apps") / "sam2"
        with serving(studies, app=app, log=folder / f"{number}.log") as server:
            yield server.start_s


def sets_table(folder: Path) -> str:
    """Run a sample of every set that is there, from a click and, with a label, from a painted slice."""
    there = [title for title, (pattern, _, _) in SAMPLES.items() if any(data_dir().glob(pattern))]
    return markdown(set_cells(title, folder) for title in there)


def set_cells(title: str, folder: Path) -> dict[str, str]:
    """Run one sample."""
    pattern, label, values = SAMPLES[title]
    image, out = min(data_dir().glob(pattern)), folder / "out.nii.gz"
    geometry = read_volume(image).geometry
    truth = np.isin(read_volume(data_dir() / label.format(name=image.name)).array, values) if label else None
    click, painted = prompts_of(truth, geometry) if truth is not None else ([n // 2 for n in geometry.size_ijk], None)
    runs = [segment(image, point(click), out)]
    found = [read_volume(out).array > 0]
    if painted is not None:
        mask = write_mask(folder / "painted.nii.gz", painted, geometry)
        runs.append(segment(image, ["--mask", f"object={mask}"], out))
        found.append(read_volume(out).array > 0)
    scores = ["no label"] * 2 if truth is None else [f"{dice(mask, truth):.2f}" for mask in found]
    seconds = [f"{run['seconds']['total']:.2f}" for run in runs] + ["-"] * (2 - len(runs))
    return {
        "set": title,
        "voxels": " x ".join(map(str, geometry.size_ijk)),
        "Dice, one click": scores[0],
        "Dice, one mask": scores[1],
        "seconds, click / mask": " / ".join(seconds),
        "warnings": str(len(runs[0]["warnings"])),
    }


def prompts_of(truth: Mask, geometry: Geometry) -> tuple[list[int], NDArray[np.uint8]]:
    """Return a click (i, j, k) and a mask [k, j, i] of the slice where the truth is largest."""
    turn = Reorientation.of(geometry)
    axis = choose_axis(turn.geometry)
    stack = SliceStack(turn.to_canonical_array(truth), axis)
    number = max(range(stack.count), key=lambda n: int(stack.slice(n).sum()))
    first = next_click(stack.slice(number), np.zeros_like(stack.slice(number)))
    if first is None:
        raise SystemExit("The label is empty.")
    click = turn.to_source_ijk(axis.to_ijk(number, *first.index)[None])[0].tolist()
    painted = turn.to_source_array(stack.assemble({number: stack.slice(number)}))
    return click, np.ascontiguousarray(painted).astype(np.uint8)


TABLES: dict[str, tuple[Callable[[Path], str], str]] = {
    "cost": (cost_table, "cost.md"),
    "sets": (sets_table, "every-set.md"),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=TABLES, action="append", help="measure this only; may be repeated")
    parser.add_argument("--pages", type=Path, help="folder of the pages that the tables are written into")
    options = parser.parse_args()
    for name in options.only or TABLES:
        measure, page = TABLES[name]
        source = provenance(bundled_spec(), command_line("python -m slicecast_lab.benchmarks.command"), device="cpu")
        with tempfile.TemporaryDirectory() as folder:
            text = f"{measure(Path(folder))}\n\n{source_line(source)}"
        print(text)
        if options.pages:
            write_blocks(options.pages / page, {name: text})


if __name__ == "__main__":
    main()
