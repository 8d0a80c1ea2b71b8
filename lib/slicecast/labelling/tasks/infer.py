"""The tasks that MONAI Label lists as models: several labels, one label, one slice."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import HTTPException
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from slicecast.active.slices import STRATEGIES
from slicecast.errors import PromptError, SlicecastError
from slicecast.inference.segment import SegmentRequest
from slicecast.inference.settings import EngineSettings
from slicecast.inference.volumetric import Segmenter
from slicecast.labelling.store.uploads import is_upload
from slicecast.labelling.tasks.answer import InferAnswer, write_answer
from slicecast.labelling.tasks.request import (
    BACKGROUND,
    BACKGROUND_VALUE,
    MAX_LABELS,
    InferRequest,
    Style,
    number_labels,
    parse_request,
)
from slicecast.prompts import MaskPrompt
from slicecast.volume import Geometry, Reorientation, SliceAxis, Volume, read_volume, window_names

CUBES = "seen in cubes of the volume"
TOGETHER = f"{CUBES} first, then propagated from the surest slices"
AXES = ("auto", "axial", "coronal", "sagittal")


@contextmanager
def as_http() -> Iterator[None]:
    """Turn our errors into HTTP for MONAI Label's own server, which answers 500 without a word to any other kind."""
    try:
        yield
    except SlicecastError as error:
        raise HTTPException(error.status, detail=str(error), headers=dict(error.headers)) from error


class SegmentTask(InferTask):
    """One way to ask the service for a mask.

    Only the task for several labels declares them, with their numbers in the mask: Slicer then sends a list of points
    for each, and OHIF reads the mask by those numbers. The others hold one object, whatever it is called; their list
    is empty, never null, because OHIF iterates over it.

    Args:
        service: shared by all tasks and users; every request is complete in itself.
        type: deepedit (one list of points per label) or deepgrow (foreground and background).
        dimension: 3, the whole volume; 2, only the slice that was clicked.
        labels: the app's labels, whose keys a request may hold.
    """

    def __init__(
        self, service: Segmenter, *, type: InferType, dimension: int, description: str, labels: Sequence[str] = ()
    ) -> None:
        super().__init__(
            type=type,
            labels=declared_labels(labels) if labels else [],
            dimension=dimension,
            description=description,
            config=client_options(dimension, service.settings),
        )
        self._service = service
        self._style: Style = "several" if type == InferType.DEEPEDIT else "single"
        self._app_labels = tuple(labels)

    @property
    def fingerprint(self) -> str:
        """Names the model and all that its answers depend on."""
        return self._service.fingerprint_of()

    def is_valid(self) -> bool:
        """Always offer the model: weights are loaded at the first request."""
        return True

    def __call__(self, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Answer one request with a mask file and its params.

        Raises:
            HTTPException: the request cannot be carried out; the detail says what was wrong and the remedy.
        """
        with as_http():
            answer = self.answer(request)
        return str(answer.file), answer.params

    def answer(self, request: Mapping[str, Any]) -> InferAnswer:
        """Answer one request; `image` is a path here; raises SlicecastError if the request cannot be carried out."""
        parsed = self._parse(request)
        image = Path(request["image"])
        study = self._service.studies.open(image)
        result = self._service.segment(self._segment_request(parsed, image, study.reorientation.source), study=study)
        return write_answer(result, parsed, image=image)

    def _parse(self, request: Mapping[str, Any]) -> InferRequest:
        wire = with_label_file(request)
        parsed = parse_request(wire, style=self._style, labels=self._app_labels)
        if self.dimension == 2:
            return parsed.on_slice()
        file, name = wire.get("label_file"), parsed.objects[0].name
        masks = uploaded_masks(file, self._app_labels) if self._style == "several" else uploaded_mask(file, name)
        return replace(parsed, slice=None).with_masks(masks, labels=self._app_labels)

    def _segment_request(self, parsed: InferRequest, image: Path, geometry: Geometry) -> SegmentRequest:
        flat, options = self.dimension == 2, self._service.settings.propagation
        return SegmentRequest(
            image=image,
            prompts=parsed.prompts(geometry.size_ijk),
            axis=stored_k_axis(geometry) if flat else parsed.axis,
            range=parsed.range,
            window=parsed.window,
            slices_only=flat,
            options=options if parsed.multi_axis is None else replace(options, multi_axis=parsed.multi_axis),
            slice_strategy=parsed.slice_strategy,
        )


def segment_tasks(
    service: Segmenter, *, volumetric: Mapping[str, Segmenter] | None = None, labels: Sequence[str] = ()
) -> dict[str, SegmentTask]:
    """Return the app's models by name; a volumetric model is one more, under its own name."""
    others = {
        name: SegmentTask(
            other,
            type=InferType.DEEPEDIT,
            dimension=3,
            labels=labels,
            description=f"Several structures from clicks, each {TOGETHER if '+' in name else CUBES}",
        )
        for name, other in (volumetric or {}).items()
    }
    return {
        "sam2": SegmentTask(
            service,
            type=InferType.DEEPEDIT,
            dimension=3,
            labels=labels,
            description="Several structures from clicks on any slices, through the whole volume",
        ),
        "sam2_single": SegmentTask(
            service,
            type=InferType.DEEPGROW,
            dimension=3,
            description="One structure from clicks on any slices, through the whole volume",
        ),
        "sam2_slice": SegmentTask(
            service, type=InferType.DEEPGROW, dimension=2, description="One structure on the clicked slice only"
        ),
        **others,
    }


def declared_labels(labels: Sequence[str]) -> dict[str, int]:
    """Return the numbers of the labels in a mask, and one for the background that no mask holds."""
    return {**number_labels(labels, labels), BACKGROUND: BACKGROUND_VALUE}


def client_options(dimension: int, settings: EngineSettings) -> dict[str, Any]:
    """Return the options that clients show; a choice is a list of strings, the only kind Slicer reads."""
    window = {"window": list(window_names())}
    if dimension == 2:
        return window
    first = settings.slice_strategy
    strategies = [first, *(name for name in STRATEGIES if name != first)]
    multi_axis = ["true", "false"] if settings.propagation.multi_axis else ["false", "true"]
    return {"axis": list(AXES), "range": "", **window, "slice_strategy": strategies, "multi_axis": multi_axis}


def stored_k_axis(geometry: Geometry) -> str:
    """Name the anatomical axis along which the file's k counts: a 2D client's slice is always one k."""
    return SliceAxis(Reorientation.of(geometry).permutation.index(2)).name.lower()


def with_label_file(request: Mapping[str, Any]) -> dict[str, Any]:
    """Move an uploaded file from `label` to `label_file`: MONAI Label's own route has one key for file and name."""
    wire = dict(request)
    if _is_file(wire.get("label")):
        wire["label_file"] = wire.pop("label")
    return wire


def uploaded_mask(file: Any, name: str) -> Mapping[str, MaskPrompt]:
    """Read the mask of a request as one object, whatever its values; nothing when there is no file.

    Raises:
        VolumeError: the file is no volume.
        PromptError: nothing is painted.
    """
    volume = _upload(file)
    return {name: MaskPrompt(volume.array != 0, geometry=volume.geometry)} if volume else {}


def uploaded_masks(file: Any, names: Sequence[str]) -> Mapping[str, MaskPrompt]:
    """Read the masks of a request; value n is the n-th of `names`. Nothing when there is no file.

    Raises:
        VolumeError: the file is no volume.
        PromptError: nothing is painted, or with values beyond MAX_LABELS.
    """
    volume = _upload(file)
    if volume is None:
        return {}
    values = [int(value) for value in np.unique(volume.array) if value != 0]
    if not values or not 0 < values[0] <= values[-1] <= MAX_LABELS:
        raise PromptError(f"The mask holds the values {values[:5]}. Paint at least one slice, with 1 to {MAX_LABELS}.")
    return {_name(value, names): MaskPrompt(volume.array == value, geometry=volume.geometry) for value in values}


def _upload(file: Any) -> Volume | None:
    return read_volume(file) if _is_file(file) else None


def _is_file(value: Any) -> bool:
    return isinstance(value, str) and is_upload(Path(value))


def _name(value: int, names: Sequence[str]) -> str:
    return names[value - 1] if value <= len(names) else f"label {value}"
