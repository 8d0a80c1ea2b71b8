"""MONAI Label's own SAM 2 task as a baseline: the same weights, slices, window and prompts, in a process of its own.

It gets the canonical slices, windowed to 0..255, as a NIfTI: fed the raw scan, it would see black or white. It knows no
masks: a painted slice is given as a box around it.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from slicecast.errors import PromptError, ResourceError
from slicecast.prompts import ObjectPrompts
from slicecast.prompts.simulate import box_from_mask
from slicecast.volume import choose_window, normalise
from slicecast_lab.evaluation.cases import Case

WORKER = "slicecast_lab.evaluation.monailabel_sam2"
STOP_LIMIT_S = 10.0
LOG_END = 600


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
        said = self._ask({**request, "mask": str(mask), "reset": reset})
        return MonaiLabelAnswer(np.load(mask), said["seconds"], said["peak_rss_mib"])

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
            raise ResourceError(f"MONAI Label's SAM 2 task has ended. The last it said: {end.strip()}")
        return dict(json.loads(line))


def segment_case(process: MonaiLabelProcess, case: Case, prompts: ObjectPrompts) -> MonaiLabelAnswer:
    """Give it a case with the prompts that the model under test got; the mask is bool [k, j, i] as stored."""
    stack, window = case.slices(case.volume.array), choose_window(case.volume)
    scan = process.write_scan(np.stack([normalise(stack.slice(n), window) for n in range(stack.count)]))
    points = {kind: [_xyn(case, p.ijk) for p in prompts.points if p.positive is kind] for kind in (True, False)}
    found = process.segment(scan, foreground=points[True], background=points[False], box=_box(case, prompts))
    canonical = case.slices(case.truth).assemble(dict(enumerate(found.mask)), dtype=bool)
    stored = np.ascontiguousarray(case.turn.to_source_array(canonical))
    return MonaiLabelAnswer(stored, found.seconds, found.peak_rss_mib)


def _box(case: Case, prompts: ObjectPrompts) -> list[int]:
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
    return [*box_from_mask(plane).astype(int).tolist(), number]


def _xyn(case: Case, ijk: Sequence[int]) -> list[int]:
    """Return a stored voxel as (x, y) on its canonical slice and the slice's number."""
    number, x, y = case.axis.to_slice(case.turn.to_canonical_ijk(ijk)).round().astype(int).tolist()
    return [x, y, number]


def _lists(voxels: Sequence[Sequence[int]]) -> list[list[int]]:
    return [[int(n) for n in voxel] for voxel in voxels]
