"""MONAI Label's own SAM 2 task as a baseline: the same weights, slices, window and prompts, in a process of its own.

It gets the canonical slices, windowed to 0..255, as a NIfTI: fed the raw scan, it would see black or white. It accepts
no masks: a painted slice is given as a box around it.

A process of its own, because ``monailabel.sam2.infer`` on import empties a cache folder that running servers share and
starts a thread that never ends, and in use leaves bf16 autocast switched on and hydra's global state changed. That
process runs this module, ``python -m slicecast_lab.evaluation.monailabel --model sam2_nano``. It answers one JSON line
on stdin with one on stdout; `roi` is i0, j0, i1, j1, k0, k1, the order that MONAI Label's code reads (Slicer sends
another):

    {"image": "scan.nii.gz", "foreground": [[i, j, k]], "background": [], "roi": [], "mask": "out.npy", "reset": true}
    {"seconds": 1.2, "peak_rss_mib": 900}
"""

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self, TextIO

import numpy as np
import SimpleITK as sitk
import torch
import typer
from numpy.typing import NDArray

from slicecast.errors import PromptError, ResourceError
from slicecast.models.registry import ModelSpec
from slicecast.models.sam2_build import write_architecture
from slicecast.models.weights import choose_model, load_state_dict
from slicecast.prompts import ObjectPrompts
from slicecast.volume import choose_window, normalise
from slicecast.volume.slices import box_of
from slicecast_lab.evaluation.cases import TruthCase
from slicecast_lab.evaluation.provenance import peak_rss_mib

WORKER = "slicecast_lab.evaluation.monailabel"
STOP_LIMIT_S = 10.0
LOG_END = 600

WEIGHTS, ARCHITECTURE = "weights.pt", "architecture.yaml"
NOWHERE = "http://localhost.invalid/"  # Put before the names of files that are in place; nothing is fetched from it


@dataclass(frozen=True, slots=True, eq=False)
class MonaiLabelAnswer:
    """What it found: mask bool (N, H, W), seconds from request to file, most memory its process had."""

    mask: NDArray[np.bool_]
    seconds: float
    peak_rss_mib: int


class MonaiLabelProcess:
    """The process; a context manager.

    Args:
        model: name in the registry; empty for the default.
        device: torch device.
        threads: CPU threads of torch; 0 leaves its own number.
    """

    def __init__(self, model: str = "", *, device: str = "cpu", threads: int = 0) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="slicecast-")
        self._log = (Path(self._folder.name) / "log.txt").open("wb")
        options = ["--model", model, "--device", device, "--threads", str(threads)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", WORKER, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self._scans = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._process.kill()
        try:
            self._process.communicate(timeout=STOP_LIMIT_S)  # closes its stdin: it ends by itself
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self._log.close()
        self._folder.cleanup()

    def write_scan(self, frames: NDArray[np.float32]) -> Path:
        """Write windowed slices (N, H, W) in [0, 1] as its input; (x, y) of slice n is its voxel (x, y, n)."""
        self._scans += 1  # it caches by path: never the same twice
        file = Path(self._folder.name) / f"scan{self._scans}.nii.gz"
        sitk.WriteImage(sitk.GetImageFromArray(frames * np.float32(255)), file)
        return file

    def segment(
        self,
        scan: Path,
        *,
        foreground: Sequence[Sequence[int]] = (),
        background: Sequence[Sequence[int]] = (),
        box: Sequence[int] = (),
        reset: bool = True,
    ) -> MonaiLabelAnswer:
        """Segment a scan of `write_scan`.

        Args:
            foreground: voxels (x, y, n) on the object.
            background: voxels beside it.
            box: x0, y0, x1, y1, n.
            reset: forget earlier requests; without, it keeps its state and adds these prompts, as its clients let it.

        Raises:
            ResourceError: the process has ended; the text has the end of its log.
        """
        mask = scan.with_suffix(".npy")
        roi = [*box[:4], box[4], box[4] + 1] if box else []
        request = {"image": str(scan), "foreground": _lists(foreground), "background": _lists(background), "roi": roi}
        reply = self._ask({**request, "mask": str(mask), "reset": reset})
        return MonaiLabelAnswer(np.load(mask), reply["seconds"], reply["peak_rss_mib"])

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        asked, answers = self._process.stdin, self._process.stdout
        line = ""
        if asked is not None and answers is not None:
            with contextlib.suppress(BrokenPipeError):
                asked.write(json.dumps(request) + "\n")
                asked.flush()
                line = answers.readline()
        if not line:
            end = Path(self._log.name).read_text(encoding="utf-8", errors="replace")[-LOG_END:]
            raise ResourceError(f"MONAI Label's SAM 2 task has ended. The end of its log: {end.strip()}")
        return dict(json.loads(line))


def segment_case(process: MonaiLabelProcess, case: TruthCase, prompts: ObjectPrompts) -> MonaiLabelAnswer:
    """Give it a case with the prompts that the model under test got; the mask is bool [k, j, i] as stored."""
    stack, window = case.slices(case.volume.array), choose_window(case.volume)
    scan = process.write_scan(np.stack([normalise(stack.slice(n), window) for n in range(stack.count)]))
    points = {kind: [_xyn(case, p.ijk) for p in prompts.points if p.positive is kind] for kind in (True, False)}
    found = process.segment(scan, foreground=points[True], background=points[False], box=_box(case, prompts))
    canonical = case.slices(case.truth).assemble(dict(enumerate(found.mask)), dtype=bool)
    stored = np.ascontiguousarray(case.turn.to_source_array(canonical))
    return MonaiLabelAnswer(stored, found.seconds, found.peak_rss_mib)


def _box(case: TruthCase, prompts: ObjectPrompts) -> list[int]:
    """Return the box, or that around the painted slice, as x0, y0, x1, y1, n."""
    if prompts.boxes:
        corners = np.array([_xyn(case, ijk) for ijk in (prompts.boxes[0].low_ijk, prompts.boxes[0].high_ijk)])
        low, high = corners.min(axis=0), corners.max(axis=0)
        return [*low[:2].tolist(), *high[:2].tolist(), int(low[2])]
    if not prompts.masks:
        return []
    painted = prompts.masks[0]
    if not painted.slices:
        raise PromptError("MONAI Label's SAM 2 task takes one painted slice, and none was named.")
    number = case.stored_slice(painted.slices[0])
    plane = case.slices(np.asarray(painted.array) != 0).slice(number)
    return [*box_of(plane).astype(int).tolist(), number]


def _xyn(case: TruthCase, ijk: Sequence[int]) -> list[int]:
    """Return a stored voxel as (x, y) on its canonical slice and the slice's number."""
    number, x, y = case.axis.to_slice(case.turn.to_canonical_ijk(ijk)).round().astype(int).tolist()
    return [x, y, number]


def _lists(voxels: Sequence[Sequence[int]]) -> list[list[int]]:
    return [[int(n) for n in voxel] for voxel in voxels]


class MonaiLabelSam2:
    """MONAI Label's interactive SAM 2 for volumes.

    Args:
        spec: the model, with its weights on this machine.
        folder: empty; for its files and caches.
        device: torch device.
    """

    def __init__(self, spec: ModelSpec, folder: Path, *, device: str = "cpu") -> None:
        self._device = device
        tensors = {name: tensor.float() for name, tensor in load_state_dict(spec).items()}
        torch.save({"model": tensors}, folder / WEIGHTS)
        file = folder / ARCHITECTURE
        write_architecture(str(spec.architecture), file, image_size=spec.image_size, pointers=spec.pointers)
        self._task = _make_task(folder)

    def segment(self, request: dict[str, Any]) -> np.ndarray:
        """Answer a request of the fields above; return uint8 [k, j, i]."""
        asked = {name: request.get(name, []) for name in ("foreground", "background", "roi")}
        image = str(request["image"])
        # Without a reset it adds to the clicks of earlier requests, of other images too.
        reset = "true" if request.get("reset", True) else "false"
        file, _ = self._task({**asked, "image": image, "device": self._device, "reset_state": reset})
        try:
            return sitk.GetArrayFromImage(sitk.ReadImage(file)) != 0
        finally:
            Path(file).unlink()


def _make_task(folder: Path) -> Any:
    """Import the module with its cache elsewhere, and make the task from the files in `folder`."""
    from monailabel.config import settings

    settings.MONAI_LABEL_DATASTORE_CACHE_PATH = str(folder / "cache")
    settings.MONAI_SAM_MODEL_PT, settings.MONAI_SAM_MODEL_CFG = NOWHERE + WEIGHTS, NOWHERE + ARCHITECTURE
    from monailabel.interfaces.tasks.infer_v2 import InferType
    from monailabel.sam2.infer import Sam2InferTask

    return Sam2InferTask(model_dir=str(folder), type=InferType.DEEPGROW, dimension=3)


def answer_lines(task: MonaiLabelSam2, asked: TextIO, answers: TextIO) -> None:
    """Answer requests, a line each, until there are no more."""
    for line in asked:
        request = json.loads(line)
        start = time.perf_counter()
        mask = task.segment(request)
        seconds = time.perf_counter() - start
        np.save(request["mask"], mask)
        answers.write(json.dumps({"seconds": seconds, "peak_rss_mib": peak_rss_mib()}) + "\n")
        answers.flush()


def main(
    model: Annotated[str, typer.Option(help="A name of `slicecast models list`; empty for the default.")] = "",
    device: Annotated[str, typer.Option(help="A torch device.")] = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads of torch; 0 leaves its own number.")] = 0,
) -> None:
    """Answer requests on stdin, one JSON line each."""
    if threads:
        torch.set_num_threads(threads)
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory(prefix="slicecast-") as folder:
        answer_lines(MonaiLabelSam2(choose_model(model or None), Path(folder), device=device), sys.stdin, answers)


if __name__ == "__main__":
    typer.run(main)
