"""MONAI Label's own ``Sam2InferTask`` as a baseline, in a process of its own, with weights of this project's registry.

    python -m slicecast_lab.evaluation.monailabel_sam2 --model sam2_nano

It answers one JSON line on stdin with one on stdout; `roi` is i0, j0, i1, j1, k0, k1, the order that its code reads
(Slicer sends another). `reset` may be false: then it adds the prompts to those that it has:

    {"image": "scan.nii.gz", "foreground": [[i, j, k]], "background": [], "roi": [], "mask": "out.npy"}
    {"seconds": 1.2, "peak_rss_mib": 900}

A process of its own, because that module on import empties a cache folder that running servers share and starts a
thread that never ends, and in use leaves bf16 autocast switched on and hydra's global state changed. What it would
download when it is made is put in place beforehand.
"""

import contextlib
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any, TextIO

import numpy as np
import SimpleITK as sitk
import torch
import typer

from slicecast.models.registry import ModelSpec
from slicecast.models.sam2_build import write_architecture
from slicecast.models.weights import choose_model, load_state_dict

WEIGHTS, ARCHITECTURE = "weights.pt", "architecture.yaml"
NOWHERE = "http://localhost.invalid/"
"""Put before the names of files that are in place; nothing is fetched from it."""


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
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        answers.write(json.dumps({"seconds": seconds, "peak_rss_mib": round(peak)}) + "\n")
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
