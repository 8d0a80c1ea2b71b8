"""Networks as static graphs on the CPU, by OpenVINO where it is installed.

PyTorch spends most of a small network's time on starting its operations; a compiled graph of fixed shape does not.
Everything is computed in float32: on processors with bfloat16 OpenVINO would choose that, and the masks break.
"""

import hashlib
import importlib.util
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slicecast.config import home_dir

logger = logging.getLogger(__name__)

PROGRESS = logging.getLogger("slicecast.progress")  # Of what is worth telling who started a server
Graph = Callable[..., tuple[Tensor, ...]]  # Tensors in, tensors out; a module itself is one
FOLDER = "graphs"  # Of compiled graphs among the caches
KEPT_FILES = 32  # Compiled graphs on the disk; a version of the bundled model has eleven, of 9 MB at most
TOLERANCE = 1e-3  # How far a graph's outputs may be from PyTorch's, else it is not used; 1e-5 is usual


def available() -> bool:
    """Tell whether OpenVINO is installed."""
    return importlib.util.find_spec("openvino") is not None


def compile_graphs(
    name: str, module: nn.Module, examples: Sequence[tuple[Tensor, ...]], *, key: str, threads: int | None = None
) -> list[Graph]:
    """Compile a module for the shapes of each example, or take what an earlier start left on the disk.

    Args:
        name: of the graph, for files and messages.
        examples: inputs of the module; the outputs for them are compared with PyTorch's.
        key: changes whenever weights or code do.
        threads: of the graph; None: OpenVINO's choice.

    Returns:
        One for each example: the module itself where OpenVINO fails, or its outputs are others.
    """

    @cache
    def convert() -> Any:
        PROGRESS.info("Compiling %s for this processor; later starts find it on the disk.", name)
        return _convert(module, examples[0])

    def load(example: tuple[Tensor, ...]) -> Graph:
        return _load(name, example, key, threads, convert)

    return [_checked(name, module, example, partial(load, example)) for example in examples]


def _checked(name: str, module: nn.Module, example: tuple[Tensor, ...], load: Callable[[], Graph]) -> Graph:
    with torch.no_grad():
        try:
            graph = load()
            off = max(float((a - b).abs().max()) for a, b in zip(graph(*example), module(*example), strict=True))
        except RuntimeError as error:
            logger.warning("OpenVINO cannot run %s, PyTorch does: %s", name, error)
            return module
    if off <= TOLERANCE:
        return graph
    logger.warning("OpenVINO answers %s with an error of %.2g, so PyTorch runs it.", name, off)
    return module


class _Compiled:
    """A compiled graph; safe between threads, one at a time."""

    def __init__(self, compiled: Any) -> None:
        self._request = compiled.create_infer_request()
        self._lock = threading.Lock()

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        with self._lock:
            found = self._request.infer([x.contiguous().numpy() for x in inputs], share_inputs=True)
            return tuple(torch.from_numpy(value) for value in found.values())


def _load(name: str, example: tuple[Tensor, ...], key: str, threads: int | None, convert: Callable[[], Any]) -> Graph:
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # not imported: it reports to Intel
    import openvino

    core = openvino.Core()
    # Pinned threads of several processes would share one core and leave the other idle.
    config = {"INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False, "NUM_STREAMS": 1}
    config |= {} if threads is None else {"INFERENCE_NUM_THREADS": threads}
    shapes = [list(x.shape) for x in example]
    machine = core.get_property("CPU", "FULL_DEVICE_NAME")
    parts = key, name, shapes, config, openvino.get_version(), torch.__version__, machine
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()
    file = home_dir() / FOLDER / f"{digest}.blob"
    try:
        return _Compiled(core.import_model(file.read_bytes(), "CPU", config))
    except (OSError, RuntimeError) as error:
        logger.debug("No compiled %s: %s", name, error)
    model = convert().clone()
    model.reshape(dict(enumerate(shapes)))
    compiled = core.compile_model(model, "CPU", config)
    _keep(file, compiled.export_model().getvalue())
    return _Compiled(compiled)


def _keep(file: Path, data: bytes) -> None:
    """Write a file whole or not at all, and drop the oldest; a start without it takes longer, and that is all."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}")
        part.write_bytes(data)
        part.replace(file)
        for old in sorted(file.parent.glob("*.blob"), key=lambda f: f.stat().st_mtime)[:-KEPT_FILES]:
            old.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("Compiled graphs could not be kept: %s", error)


def _convert(module: nn.Module, example: tuple[Tensor, ...]) -> Any:
    """Return OpenVINO's model of a module.

    By the frontend itself: `openvino.convert_model` reports to its makers that it was used.
    """
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that shapes become constants is what is wanted
        traced = torch.jit.trace(module, example, check_trace=False)
        decoder = TorchScriptPythonDecoder(traced, example_input=example)
    frontend = FrontEndManager().load_by_framework("pytorch")
    return frontend.convert(frontend.load(decoder))
