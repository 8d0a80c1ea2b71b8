"""The base class of our MONAI Label app.

An app's main.py imports this module, not the class: MONAI Label would take the first class it finds there.
"""

import copy
import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from monailabel.config import settings
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask

from slicecast.active.calibration import Calibration
from slicecast.campaign.settings import FOLDER
from slicecast.errors import ConfigError, InputError, NotFound, UnknownModel
from slicecast.inference.segment import SegmentService
from slicecast.inference.sessions import Propagated
from slicecast.inference.volumetric import Segmenter
from slicecast.labelling.campaign.drafts import MaskDraft
from slicecast.labelling.campaign.service import CampaignService, open_campaign_service
from slicecast.labelling.conf import AppConfig
from slicecast.labelling.finetuning.automatic import AutomaticModels, AutomaticTask
from slicecast.labelling.finetuning.tuner import FineTuner, versions_beside
from slicecast.labelling.preannotation import BatchInference, BatchRequest, FarGuess, PreAnnotator, preannotation
from slicecast.labelling.state import only_server
from slicecast.labelling.store.pacs import PacsDatastore, open_pacs
from slicecast.labelling.store.stow import Outcome
from slicecast.labelling.store.studies import FoundImage, StudiesDatastore, find_image
from slicecast.labelling.store.uploads import SafeSessions
from slicecast.labelling.strategies import EMBEDDINGS, BackgroundRanker, open_background_ranker
from slicecast.labelling.tasks.answer import write_answer
from slicecast.labelling.tasks.infer import SegmentTask, as_http
from slicecast.labelling.tasks.request import BACKGROUND, InferRequest, number_labels
from slicecast.prompts import MaskPrompt

logger = logging.getLogger(__name__)

CACHE = "cache"  # Folder of the app for uploads and downloads, and for a campaign whose studies cannot be written to
RANDOM = "random"  # The strategy of a request that names none


STUDY_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")
"""Endings of images in the studies' folder; MONAI Label would list JPEG and XML files too."""


class Leased(Strategy):
    """A strategy whose answers are leased to the caller.

    Args:
        strategy: chooses.
        name: of it.
        service: leases.
    """

    def __init__(self, strategy: Strategy, name: str, service: CampaignService) -> None:
        super().__init__(strategy.description)
        self.chooser = strategy
        self._name = name
        self._service = service

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Choose a case and lease it; None when nothing is left."""
        return self._service.next_sample(self.chooser, self._name, request)


class AppBehaviour(MONAILabelApp):
    """A MONAI Label app; set `self.config`, `self.service` and `self.volumetric` before the constructor runs.

    Methods raise our own errors, which `slicecast.server.errors` turns into answers. Images are named by id, never by
    path. Nothing is downloaded, and nothing written outside the studies and the app.
    """

    config: AppConfig
    service: SegmentService
    volumetric: Mapping[str, Segmenter] = MappingProxyType({})
    studies: str
    _datastore: StudiesDatastore
    _sessions: SafeSessions | None
    _infers: dict[str, SegmentTask | AutomaticTask]
    _strategies: dict[str, Strategy]
    _trainers: dict[str, TrainTask]

    @cached_property
    def alone(self) -> ExitStack:
        """What keeps other servers off the studies until it is closed, or the process ends."""
        return ExitStack()

    @cached_property
    def campaign_service(self) -> CampaignService:
        """The campaign; it lies beside the studies if that folder is writable, else beside the app."""
        place = campaign_place(self.app_dir, self.studies)
        return open_campaign_service(place, datastore=self.datastore, labels=self.config.labels)

    @cached_property
    def fine_tuner(self) -> FineTuner:
        """The fine-tuning on submitted labels; its weights lie in the campaign's folder."""
        return FineTuner(
            self.campaign_service,
            datastore=self.datastore,
            versions=versions_beside(campaign_place(self.app_dir, self.studies)),
            base=lambda: self.service.base,
            labels=self.config.labels,
            device=self.config.device,
        )

    @cached_property
    def automatic_models(self) -> AutomaticModels:
        """The networks that learnt the campaign's labels and segment without prompts."""
        return AutomaticModels(versions_beside(campaign_place(self.app_dir, self.studies)))

    @cached_property
    def background_ranker(self) -> BackgroundRanker:
        """The order of images without a label; off for a DICOM server, which would have to send each image."""
        return open_background_ranker(
            self.service,
            self.datastore,
            folder=campaign_place(self.app_dir, self.studies) / FOLDER / EMBEDDINGS,
            local=is_writable_folder(self.studies),
        )

    def init_datastore(self) -> StudiesDatastore:
        """Open the studies: a folder or a DICOM server."""
        if self.studies.startswith(("http://", "https://")):
            settings.MONAI_LABEL_DICOMWEB_CACHE_PATH = settings.MONAI_LABEL_DICOMWEB_CACHE_PATH or str(self._cache)
            cache = Path(settings.MONAI_LABEL_DICOMWEB_CACHE_PATH)
            return open_pacs(self.studies, cache, labels=self.config.labels)
        return StudiesDatastore(
            self.studies,
            follow_links=self.config.follow_links,
            labels=self.config.labels,
            extensions=[f"*{ending}" for ending in STUDY_ENDINGS],
            auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
            read_only=settings.MONAI_LABEL_DATASTORE_READ_ONLY,
        )

    def datastore(self) -> StudiesDatastore:
        """Return the images and labels."""
        return self._datastore

    def unlisted_series(self) -> frozenset[str]:
        """Return the UIDs of series on a DICOM server that nobody is to see listed: labels that were replaced."""
        store = self._datastore
        return store.replaced_segs() if isinstance(store, PacsDatastore) else frozenset()

    def store_segmentations(self, parts: Sequence[bytes], *, study: str = "") -> Outcome:
        """Store DICOM SEG objects; each becomes its image's final label, as any other that is submitted."""

        def save(image: str, file: Path, record: Mapping[str, object]) -> None:
            self.campaign_service.save(image, file, tag=DefaultLabelTag.FINAL.value, info=record)

        return self._datastore.store_instances(parts, study=study, save=save)

    def sessions(self) -> SafeSessions | None:
        """Return the upload sessions; None where they are switched off."""
        return self._sessions

    def info(self) -> dict[str, Any]:
        """Describe the app; the background is among the labels, because Slicer offers no points for another."""
        return {**super().info(), "labels": [*self.config.labels, BACKGROUND]}

    def infer(self, request: Mapping[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Answer as `answer` does; the way in of MONAI Label's own server, which needs errors `as_http`."""
        with as_http():
            return self.answer(request, datastore)

    def answer(self, request: Mapping[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Answer an infer request; with `save_label` true, keep the mask under `label_tag` too.

        Raises:
            SlicecastError: the request cannot be carried out.
        """
        store = datastore or self.datastore()
        task = self._task(request.get("model"))
        image = find_image(request, store, sessions=self._sessions_folder())
        answer = task.answer({**copy.deepcopy(dict(request)), "image": str(image.path)})
        if image.id is not None:
            model = task.fingerprint
            self.campaign_service.remember(image.id, answer, request=request, model=model)
        file = str(answer.file)
        label = self._saved(image, file=file, request=request, params=answer.params)
        return {"label": label, "tag": DefaultLabelTag.ORIGINAL, "file": file, "params": answer.params}

    def image_path(self, image_id: str) -> Path:
        """Find the file or DICOM folder of an image of the studies.

        Raises:
            UnknownImage: there is none of that id.
            InputError: it is a path.
        """
        found = find_image({"image": image_id}, self.datastore())
        if found.id is None:
            raise InputError(f"The image '{image_id}' is a path. Give the id of an image of the studies.")
        return found.path

    def current_masks(self, image_id: str, who: str) -> list[tuple[str, MaskPrompt]]:
        """Return what a person sees of an image's case, draft, label or pre-annotation, as painted structures."""
        service = self.campaign_service
        service.sync()
        case, store = service.case_of(image_id), self.datastore()
        found = service.work.current(case, service.who(case, client_id=who))
        if found is None and (guess := store.get_label_uri(case, DefaultLabelTag.ORIGINAL)):
            found = MaskDraft(Path(guess), store.get_label_info(case, DefaultLabelTag.ORIGINAL) or {})
        if found is None:
            return []
        now = service.work.structures(found)
        geometry = now.mask.geometry
        return [(name, MaskPrompt(now.mask.array == value, geometry=geometry)) for name, value in now.values.items()]

    def keep_draft(self, image_id: str, done: Propagated, *, prompts: Mapping[str, Any], client_id: str) -> None:
        """Add a session's result to a person's draft of the image's case.

        Args:
            image_id: the image.
            done: the session's.
            prompts: by kind, then object (`SessionState.given`), for the campaign's events.
            client_id: the person, where nobody logs in.
        """
        values = number_labels(done.result.labels, self.config.labels)
        wanted = InferRequest((), values, extension=".nii.gz", compress=True)
        answer = write_answer(done.result, wanted, image=self.image_path(image_id))
        try:
            request = {"model": "session", "client_id": client_id}
            self.campaign_service.remember(image_id, answer, request=request, model=done.weights, prompts=prompts)
        finally:
            answer.file.unlink()

    def change_draft(self, image_id: str, who: str, *, without: Sequence[str]) -> dict[str, Any]:
        """Take structures out of a person's draft, if it holds them; return what Submit would save.

        Keys: case, its name; objects, value, voxels and ml by name; shown, for `CampaignService.submit_draft`, or None
        where there is nothing to submit.
        """
        service = self.campaign_service
        case = service.case_of(image_id)
        person = service.who(case, client_id=who)
        for name in without:
            with suppress(NotFound):
                service.work.drop(case, person, name)
        try:
            found = service.work.to_submit(case, person)
        except NotFound:
            return {"case": case, "objects": {}, "shown": None}
        return {"case": case, "objects": service.work.structures(found).objects(), "shown": found.record["when_s"]}

    def preannotation(self, image_id: str) -> dict[str, Any]:
        """Return an image's pre-annotation as `infer` returns a result, made now if the campaign has a network for it.

        An empty mask where there is none.

        Raises:
            UnknownImage: there is no image of that id.
        """
        study = self.service.studies.open(self.image_path(image_id))
        self._preannotator.automatic(image_id)
        geometry = study.reorientation.source
        return preannotation(self.datastore(), image_id, geometry=geometry, labels=self.config.labels)

    def infer_wsi(self, request: Mapping[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Refuse: this app has no pathology model."""
        raise UnknownModel("This app has no model for whole-slide images. Use one of the models of /info/.")

    def next_sample(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Choose the next image; the answer's `chosen_by` names the strategy."""
        name = asked_strategy(request, own=self.config.strategy)
        _known(name, self._strategies, "strategy")
        sample = super().next_sample({**request, "strategy": name})
        told = {key: value for key, value in sample.items() if key != "path"}  # of the server; clients download
        return {**told, **self._datastore.dicom_names(sample["id"]), "chosen_by": name} if sample else {}

    def own_strategy(self) -> Strategy:
        """Return the campaign's own strategy without its lease."""
        strategy = self._strategies[self.config.strategy]
        return strategy.chooser if isinstance(strategy, Leased) else strategy

    @cached_property
    def batch_inference(self) -> BatchInference:
        """Pre-annotations of many images at once."""
        far = FarGuess(self.automatic_models.versions.folder.resolve(), self.config.labels, self.config.device)
        return BatchInference(self._preannotator, self.datastore(), far)

    def batch_infer(self, request: Mapping[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Pre-annotate many images in this process, now; return a summary."""
        asked = BatchRequest.parse(request["model"], request.get("images", "all"), request)
        return self.batch_inference.run(asked).described()

    def on_init_complete(self) -> None:
        """Refuse other servers; lease what strategies choose; record labels saved while the server was down.

        Raises:
            ConfigError: `--conf strategy` names none that exists.
            ResourceError: another server runs on the studies.
        """
        self.alone.enter_context(only_server(self.studies))
        name = self.config.strategy
        if self._strategies and name not in self._strategies:
            raise ConfigError(f"--conf strategy is '{name}'. Choose one of {', '.join(self._strategies)}.")
        self._strategies = {
            known: Leased(chooser, known, self.campaign_service) for known, chooser in self._strategies.items()
        }
        self.campaign_service.recover()
        self.campaign_service.teach(self._learn)
        self.fine_tuner.resume()
        super().on_init_complete()

    def _learn(self, calibration: Calibration) -> None:
        self.service.calibration = calibration

    def on_save_label(self, image_id: str, label_id: str) -> dict[str, Any]:
        """Start what a new label starts: a new order, perhaps fine-tuning, and pre-annotations.

        Pre-annotations not for a DICOM server, which would have to send the images.
        """
        self.background_ranker.wake()
        self.fine_tuner.consider()
        if self.config.preannotate and not self.studies.startswith(("http://", "https://")):
            self._preannotator.go_on()
        return {}

    @property
    def _cache(self) -> Path:
        """Folder of uploads and downloads; MONAI Label would use the user's home."""
        return Path(self.app_dir) / CACHE

    @cached_property
    def _preannotator(self) -> PreAnnotator:
        return PreAnnotator(
            self.service, self.datastore(), self.config.labels, self.automatic_models, device=self.config.device
        )

    def _download_dcmqi_tools(self) -> None:
        """Download nothing: a hospital's server has no access to the internet."""

    def _load_sessions(self, load: bool = False) -> SafeSessions | None:
        if not load:
            return None
        folder = settings.MONAI_LABEL_SESSION_PATH or str(self._cache / "sessions")
        return SafeSessions(folder, settings.MONAI_LABEL_SESSION_EXPIRY)

    def _sessions_folder(self) -> Path | None:
        sessions = self.sessions()
        return Path(sessions.store_path) if sessions is not None else None

    def _task(self, model: Any) -> SegmentTask | AutomaticTask:
        task: SegmentTask | AutomaticTask = _known(model, self._infers, "model", error=UnknownModel)
        return task

    def _saved(self, image: FoundImage, *, file: str, request: Mapping[str, Any], params: Any) -> str:
        if not (request.get("save_label") and image.id is not None):
            return file
        tag = request.get("label_tag") or DefaultLabelTag.ORIGINAL.value
        named = {"label_info": params.get("label_info")} if tag == DefaultLabelTag.FINAL.value else {}
        info = {"model": request["model"], "params": params, **named}
        client_id = request.get("client_id")
        return self.campaign_service.save(image.id, Path(file), tag=tag, info=info, client_id=client_id)["label"]


def is_writable_folder(studies: str) -> bool:
    """Tell whether the studies are a folder that may be written to."""
    return not studies.startswith(("http://", "https://")) and not settings.MONAI_LABEL_DATASTORE_READ_ONLY


def campaign_place(app_dir: str, studies: str) -> Path:
    """Return where the campaign lies: in the studies, or beside the app if these cannot be written to."""
    return Path(studies) if is_writable_folder(studies) else Path(app_dir) / CACHE


def asked_strategy(request: Mapping[str, Any], *, own: str) -> str:
    """Return the name of the strategy that a request asks for.

    OHIF asks for `random` whatever its menu shows, and sends no `client_id`; from it, `random` means the server's own.
    """
    name = request.get("strategy") or RANDOM
    return own if name == RANDOM and not request.get("client_id") else str(name)


def _known(name: Any, known: Mapping[str, Any], what: str, *, error: type[NotFound] = NotFound) -> Any:
    if name not in known:
        raise error(f"There is no {what} '{name}'. Known: {', '.join(known) or 'none'}.")
    return known[name]
