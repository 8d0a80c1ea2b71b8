"""The MONAI Label app: SAM 2 propagates one annotated slice through the whole volume.

    slicecast serve --studies DIR
    monailabel start_server --app apps/sam2 --studies DIR --uvicorn_app slicecast.server.app:app

Under MONAI Label's own application it works too, but answers most errors with a bare 500.
Composition only: everything is in the package `slicecast`. MONAI Label takes the first class of this file that
derives directly from MONAILabelApp, so there is exactly one.
"""

from functools import partial
from typing import Any

from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask

import slicecast
from slicecast.inference.opening import volumetric_services
from slicecast.inference.queue import DeviceQueue
from slicecast.inference.settings import request_limits
from slicecast.inference.studies import Studies
from slicecast.inference.workers import WorkersService
from slicecast.labelling import app as behaviour
from slicecast.labelling.finetuning.automatic import MODEL, AutomaticTask
from slicecast.labelling.finetuning.tuner import NAME, FinetuneTask, versions_beside
from slicecast.labelling.strategies import ranked_strategies, strategies
from slicecast.labelling.tasks.infer import segment_tasks
from slicecast.server.settings import server_settings
from slicecast.volume import read_volume
from slicecast.volume.headers import READING


class SlicecastApp(behaviour.AppBehaviour, MONAILabelApp):
    """One service, shared by every task and every user; its weights are loaded at the first click."""

    def __init__(self, app_dir: str, studies: str, conf: dict[str, Any] | None) -> None:
        self.config = behaviour.AppConfig.from_conf(conf)
        queue = DeviceQueue(server_settings().queue)
        versions = versions_beside(behaviour.campaign_place(app_dir, studies))
        self.service = WorkersService(
            model=self.config.model, device=self.config.device, queue=queue, versions=versions
        )
        READING.most = request_limits().voxels_at_once
        self.service.studies = Studies(read=partial(read_volume, max_voxels=request_limits().voxels))
        self.volumetric = volumetric_services(self.service, device=self.config.device)
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf or {},
            name="Slicecast",
            description="One annotated slice becomes a segmented volume (SAM 2). Research use, not a medical device.",
            version=slicecast.__version__,
            labels=list(self.config.labels),
        )

    def init_infers(self) -> dict[str, InferTask]:
        """Register sam2 (several labels), sam2_single, sam2_slice, volumetric models with weights here, automatic."""
        labels, device = self.config.labels, self.config.device
        automatic = AutomaticTask(self.service, lambda: self.automatic_models, labels=labels, device=device)
        return {**segment_tasks(self.service, volumetric=self.volumetric, labels=labels), MODEL: automatic}

    def init_trainers(self) -> dict[str, TrainTask]:
        """Register fine-tuning on the submitted labels."""
        return {NAME: FinetuneTask(self.fine_tuner)}

    def init_strategies(self) -> dict[str, Strategy]:
        """Register random and first, and those of configs/active.yaml."""
        known = strategies()
        return {**known, **ranked_strategies(self.background_ranker, known, own=self.config.strategy)}
