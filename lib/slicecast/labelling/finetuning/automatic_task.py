"""The task `automatic`: a scan is segmented without prompts by the network that learnt the campaign's labels."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from slicecast.errors import NotFound
from slicecast.inference.segment import SegmentService
from slicecast.labelling.finetuning.automatic import MODEL, AutomaticModels
from slicecast.labelling.tasks.answer import InferAnswer, described_objects, mask_file
from slicecast.labelling.tasks.infer import as_http
from slicecast.labelling.tasks.request import number_labels, read_extension, read_flag
from slicecast.volume import write_mask

UNTRAINED = "There is no automatic network yet. Submit labels, then run 'slicecast train automatic --studies DIR'."


class AutomaticTask(InferTask):
    """The campaign's latest network; clients list it under automatic segmentation as soon as there is one.

    Args:
        service: whose device queue and opened scans are used.
        models: gives the campaign's networks; called with each request.
        labels: the app's, whose numbers a mask has.
    """

    def __init__(
        self, service: SegmentService, models: Callable[[], AutomaticModels], *, labels: Sequence[str], device: str
    ) -> None:
        super().__init__(
            type=InferType.SEGMENTATION,
            labels=list(labels),
            dimension=3,
            description="All structures without prompts, learnt from the submitted labels",
        )
        self._service, self._models, self._app_labels, self._device = service, models, tuple(labels), device

    @property
    def fingerprint(self) -> str:
        """Names the network."""
        network = self._models().latest()
        return network.name if network is not None else MODEL

    def is_valid(self) -> bool:
        """Tell whether there is a network."""
        return self._models().latest() is not None

    def __call__(self, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Answer one request with a mask file and its params; errors as HTTP."""
        with as_http():
            answer = self.answer(request)
        return str(answer.file), answer.params

    def answer(self, request: Mapping[str, Any]) -> InferAnswer:
        """Answer one request; `image` is a path here.

        Raises:
            NotFound: there is no network yet.
            SlicecastError: the scan cannot be read.
        """
        models, begun, image = self._models(), time.perf_counter(), Path(request["image"])
        network = models.latest()
        if network is None:
            raise NotFound(UNTRAINED)
        study = self._service.studies.open(image)
        values = number_labels(network.plan.names, self._app_labels)
        with self._service.queue.step():
            mask = models.segment(network, study, values, device=self._device)
        geometry = study.reorientation.source
        path = mask_file(read_extension(request.get("result_extension")), image)
        write_mask(path, mask, geometry, compress=read_flag(request.get("result_compress")))
        params = {
            **described_objects(mask, values, geometry),
            "confidence": [],
            "mean_confidence": None,
            "latencies": {"total": round(time.perf_counter() - begun, 4)},
            "warnings": []
            if mask.any()
            else ["The network found nothing in this scan. Place points with a model instead."],
        }
        return InferAnswer(path, params)
