"""The campaign service: MONAI Label's requests become events of the campaign.

Next Sample leases a case, a click renews the lease, a saved label is a submission. Who the caller is, in this order:
the login; what the request says (`client_id`, else cookie or header); the holder of the case's lease, if it was taken
from the same address; the address. A lease of a nameless client yields to a named client at the same address.
"""

import hashlib
import json
import logging
import re
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from monailabel.interfaces.tasks.strategy import Strategy

from slicecast.active.calibration import Calibration
from slicecast.campaign.campaign import SERVER, Campaign, Choice, open_campaign
from slicecast.campaign.events import Kind
from slicecast.campaign.report import calibration
from slicecast.campaign.settings import FOLDER, find_truth, keep_truth
from slicecast.campaign.state import DONE, ReadingTask, Status
from slicecast.dicom.series import is_uid
from slicecast.errors import Conflict, InputError, SlicecastError
from slicecast.files import file_sha256
from slicecast.inference.caller import Caller, calling, current_caller
from slicecast.labelling.campaign.drafts import SLICE_FEATURES, CaseDrafts, Drafts, MaskDraft
from slicecast.labelling.campaign.dropped import Dropped
from slicecast.labelling.campaign.structures import Structures, compare_labels, slice_truths
from slicecast.labelling.store.datastore import VERSIONS
from slicecast.labelling.store.delivery import Intents, Submission
from slicecast.labelling.store.labels import FINAL, ORIGINAL, require_named, with_names
from slicecast.labelling.store.studies import StudiesDatastore
from slicecast.labelling.strategies import Candidates
from slicecast.labelling.tasks.answer import InferAnswer
from slicecast.labelling.tasks.request import bounded, prompts_of

logger = logging.getLogger(__name__)

OWN_TAGS = tuple(f"{task}-" for task in (ReadingTask.SECOND, ReadingTask.GOLD))
"""How the tags begin that only this service writes, each for one person."""

SENT_BACK = "sent back"  # Model of a pre-annotation that is a label which a reviewer sent back
NOBODY = "nobody"  # Name of a caller inside the server


class CampaignService:
    """What the app and the campaign page do with a campaign.

    Args:
        campaign: its rules and events.
        datastore: the images and labels.
        folder: of drafts and gold truths.
        labels: names of structures, whose places are their numbers in drafts.
    """

    def __init__(
        self, campaign: Campaign, *, datastore: Callable[[], StudiesDatastore], folder: Path, labels: Sequence[str] = ()
    ) -> None:
        self.campaign = campaign
        self.work = CaseDrafts(campaign, datastore, Drafts(folder / "drafts"), labels=labels)
        self._intents = Intents(folder / "submissions")
        self._datastore, self._labels = datastore, tuple(labels)
        self._folder = folder
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="compare")
        self._pupil: Callable[[Calibration], None] = lambda calibration: None
        self._examined: set[str] = set()
        self._examiner = threading.Thread()
        self.dropped = Dropped(datastore, self._submit_dropped)

    def who(self, case: str | None = None, *, client_id: object = None) -> str:
        """Return the name of the caller; see the module's docstring."""
        caller = current_caller()
        named = caller.called(client_id)
        if named is not None:
            return named
        lease = self.campaign.state().case(case).lease if case else None
        if lease is not None and lease.address == caller.address and lease.live(self.campaign.now_s()):
            return lease.who
        return caller.address or NOBODY

    def adopt(self, case: str, who: str) -> None:
        """Release a case that a nameless client at the caller's address holds: most likely it is the same person."""
        lease, address = self.campaign.state().case(case).lease, current_caller().address
        if lease is not None and who != lease.who == lease.address == address:
            self.campaign.release(case, lease.who)

    def case_of(self, image: str) -> str:
        """Return the case of an image, which may be named by the UID of its DICOM series."""
        return self._datastore().image_id(image)

    def sync(self, *, look: bool = True) -> list[str]:
        """Add new images as cases, and reopen those whose final label was removed; return the usable images, sorted."""
        store = self._datastore()
        every, labelled = store.list_images(), set(store.get_labeled_images())
        self._examine(every)
        if look:
            self.dropped.look_soon()
        bad = self.unusable()
        images = [image for image in every if image not in bad]
        self.campaign.add({image: image in labelled for image in images})
        self._reopen(set(images) - labelled)
        return sorted(images)

    def _reopen(self, unlabelled: Collection[str]) -> None:
        """Open cases again whose label is gone, and not those whose label came since they were looked at."""
        cases = self.campaign.state().cases
        if any(name in cases and cases[name].status in DONE for name in unlabelled):
            with self._intents.alone():  # nobody is between a label and its event, in no process
                self._datastore().refresh()
                self.campaign.reopen(set(unlabelled).difference(self._datastore().get_labeled_images()))

    def recover(self) -> list[str]:
        """Finish what a crash interrupted, and record labels that came without an event; return their cases."""
        self.sync(look=False)
        self.work.name_again()
        return [*self._finish_left(), *self.dropped.look()]

    def _submit_dropped(self, image: str, file: Path) -> bool:
        """Submit a label that somebody put among the final ones, if its case has none yet."""
        with self._intents.alone(), calling(Caller(name=SERVER)):
            case = self.campaign.state().case(image)
            if self._intents.wait_for(image) or not file.exists():  # taken away, as by a save that failed
                return False
            if case.gold or case.reading(ReadingTask.ANNOTATE) or case.status not in (Status.OPEN, Status.REJECTED):
                self.work.refuse_changed(image)
                return False
            info = {**(self._datastore().get_label_info(image, FINAL) or {}), "found": True}
            self._submit(self._admitted(image, image, SERVER, info), file)
        return True

    def next_sample(self, strategy: Strategy, name: str, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """Lease the next case to the caller, that of `ahead` if it may be; None when nothing is left for them."""
        images, store = self.sync(), self._datastore()
        answers: dict[str, dict[str, Any]] = {}

        def ranking(names: Sequence[str]) -> list[Choice]:
            for left in ([name for name in names if name == request.get("ahead")], list(names)):
                while left and (answer := strategy(request, Candidates(store, left))):
                    if not self.why_unusable(answer["id"]):
                        answers[answer["id"]] = dict(answer)
                        return [Choice(answer["id"], str(answer.get("reason", "")), _score(answer))]
                    left.remove(answer["id"])
            return []

        who = self.who(client_id=request.get("client_id"))
        address = current_caller().address
        choice = self.campaign.next_case(who, available=images, ranking=ranking, strategy=name, address=address)
        if choice is None:
            return None
        lease = {"holder": who, "seconds": self.campaign.rules.lease_s}
        return {**answers.get(choice.case, {}), "id": choice.case, "reason": choice.reason, "lease": lease}

    def queue(self, strategy: Strategy) -> list[Choice]:
        """Return the open cases in a strategy's order; by name, without a reason, if it cannot rank."""
        store = self._datastore()
        present = set(store.list_images()) - self.unusable().keys()
        cases = self.campaign.state().cases.values()
        names = sorted(c.name for c in cases if c.status is Status.OPEN and not c.gold and c.name in present)
        rank = getattr(strategy, "rank", None)
        return list(rank(names, Candidates(store, names))) if rank else [Choice(name, "") for name in names]

    def why_unusable(self, image: str) -> str:
        """Return why an image cannot be segmented; "" where it can, or where it lies on another server."""
        return self._datastore().why_unusable(image)

    def unusable(self) -> dict[str, str]:
        """Return the images that cannot be segmented, as far as they have been examined, with their reasons."""
        return self._datastore().unusable()

    def _examine(self, images: Sequence[str]) -> None:
        """Examine new images in the background."""
        if self._examined == set(images) or self._examiner.is_alive():
            return
        self._examined = set(images)
        self._examiner = own = threading.Thread(target=self._datastore().examine, name="examine-images", daemon=True)
        own.start()

    def remember(
        self,
        image: str,
        answer: InferAnswer,
        *,
        request: Mapping[str, Any],
        model: str,
        prompts: Mapping[str, Mapping[str, list[Any]]] | None = None,
    ) -> None:
        """Add a model's answer to the caller's draft, and record the prediction; one without a name is not kept.

        A session's `prompts` are its own (`SessionState.given`); else they are those of the request.
        """
        self.sync()
        case = self.case_of(image)
        who = self.who(case, client_id=request.get("client_id"))
        self.work.add(image, case, who, answer, {"task": request.get("model"), "model_hash": model})
        if answer.slice is None:
            given = prompts_of(request) if prompts is None else bounded(prompts)
            said = {"model": request.get("model"), "model_hash": model, "prompts": given}
            told = {key: answer.params.get(key) for key in ("mean_confidence", "axis", "next_slice")}
            self.campaign.predicted(case, who, {**said, **told})

    def save(
        self, image: str, file: Path, *, tag: str, info: Mapping[str, Any], client_id: object = None
    ) -> dict[str, str]:
        """Save a label and record it; a second or a gold reading goes under a tag of its own.

        The only way to a final label. File and event are both there or neither, also after a kill; see `Intents`.

        Raises:
            Conflict: another user holds the case, or its label is approved; the label was not saved.
            InputError: the file cannot be the image's label, or the tag is the server's own.
        """
        if tag != FINAL:
            _refuse_own_tag(tag)
            return {"image": image, "label": self._datastore().save_label(image, str(file), tag, dict(info))}
        self.sync()
        case = self.case_of(image)
        who = self.who(case, client_id=client_id or info.get("client_id"))
        self.adopt(case, who)
        with self._intents.alone():
            submission = self._admitted(image, case, who, info)
            label = self._submit(submission, file)
        if submission.tag == FINAL:
            self._forget_start(case)
        self._thread.submit(self._compare_all, case, who, submission.task, submission.tag)
        return {"image": image, "label": label}

    def _forget_start(self, case: str) -> None:
        """Remove a label that was sent back from among the pre-annotations: a second reader must not see it."""
        store = self._datastore()
        if (store.get_label_info(case, ORIGINAL) or {}).get("model") == SENT_BACK:
            store.remove_label(case, ORIGINAL)

    def _admitted(self, image: str, case: str, who: str, info: Mapping[str, Any]) -> Submission:
        caller = current_caller()
        anyones = caller.roles is not None and caller.may("reviewer")
        task = self.campaign.task_of(case, who, anyones=anyones)
        tag = FINAL if task is ReadingTask.ANNOTATE else f"{task}-{_plain(who)}"
        said = {key: info[key] for key in ("active_s", "model", "label_info", "found") if info.get(key) is not None}
        draft = self.work.drafts.find(case, who)
        if draft is not None:
            said = {"model": draft.record.get("task"), "model_hash": draft.record.get("model_hash"), **said}
        after, told = self.campaign.state().number, {**info, "user": who}
        return Submission(image, case, who, task, tag, after, told, said, anyones)

    def _submit(self, submission: Submission, file: Path) -> str:
        with self._intents.begun(file, submission):
            return self._finish(file, submission)

    def _finish(self, file: Path, new: Submission) -> str:
        """Save a label and write its event; where one fails, the label is put back as it was."""
        store = self._datastore()
        with store.all_or_nothing(new.case, new.tag):
            label = store.save_label(new.image, str(file), new.tag, dict(new.info))
            named = {"label_info": (store.get_label_info(new.case, new.tag) or {}).get("label_info")}
            data = {"tag": new.tag, **self._fingerprint(new.case, new.tag), **new.said, **named}
            self.campaign.submitted(new.case, new.who, data, task=new.task, anyones=new.anyones)
        return str(label)

    def _finish_left(self) -> list[str]:
        """Finish the submissions that a kill interrupted, unless a later one took their place; return their cases.

        It may have been a command that was killed, while a server went on.
        """
        found = []

        def finish(file: Path, left: Submission) -> None:
            events = self.campaign.store.read(after=left.after)
            if left.tag not in [e.data.get("tag") for e in events if e.kind is Kind.SUBMITTED and e.case == left.case]:
                self._finish(file, replace(left, anyones=True))  # it was let in before the kill
                found.append(left.case)

        with self._intents.alone():
            self._intents.finish_left(finish)
        return found

    def submit_draft(self, case: str, who: str, *, shown: float | None = None) -> dict[str, Any]:
        """Save what a person has of a case as their label; returns that, and the structures in it (`saved`).

        Args:
            case: its name.
            who: the person.
            shown: `when_s` of what they were shown.

        Raises:
            NotFound: there is nothing to submit.
            Conflict: another user holds the case, or it has changed since it was shown.
        """
        with self.work.alone:
            found = self.work.to_submit(case, who)
            if shown is not None and shown != found.record["when_s"]:
                raise Conflict("There is a newer result than the one shown here. Load the page again and look at it.")
            now = self.work.structures(found)
            info = {"model": found.record.get("task") or found.record.get("model"), "label_info": now.label_info()}
            saved = self.save(found.record["image"], found.file, tag=FINAL, info=info, client_id=who)
        return {**saved, "saved": now.objects()}

    def mark(self, case: str) -> str:
        """Return what tells a case's final label, voxels and names, from every other; "" where there is none."""
        file, info = self.work.final_label(case), self._datastore().get_label_info(case, FINAL) or {}
        told = f"{file_sha256(file)} {json.dumps(info.get('label_info'))}" if file else ""
        return hashlib.sha256(told.encode()).hexdigest() if told else ""

    def approve(
        self, case: str, who: str, *, why: str = "", asked: Mapping[str, Any] | None = None, shown: str | None = None
    ) -> None:
        """Accept a case's label, if it is the one of the mark `shown`; `why` is a note, on the slice `asked`.

        Raises:
            Conflict: there is none, it is the reviewer's own, or not what was shown, or not what was submitted.
        """
        with self._intents.alone():
            self._refuse_unseen(case, shown)
            self.work.refuse_changed(case)
            self.campaign.approve(case, who, why=why, asked=asked)

    def _refuse_unseen(self, case: str, shown: str | None) -> None:
        if shown is not None and shown != self.mark(case):
            raise Conflict(f"The label of '{case}' is not the one shown here any more. Load the page again and look.")

    def send_back(
        self,
        case: str,
        who: str,
        *,
        why: str,
        approved: bool = False,
        asked: Mapping[str, Any] | None = None,
        shown: str | None = None,
    ) -> None:
        """Let a case be done again, with its label as the start: in OHIF at once, in Slicer as the pre-annotation.

        Args:
            case: its name.
            who: the reviewer.
            why: what is to be done.
            approved: its label is approved, and is opened again.
            asked: where, `slice` and `axis`.
            shown: `mark` of the label that the reviewer looked at.

        Raises:
            Conflict: there is no such label, or it has changed since it was shown.
            InputError: an approved label is opened without a reason.
        """
        if approved and self.campaign.state().case(case).status is not Status.APPROVED:
            raise Conflict(f"The label of '{case}' is not approved, so it need not be opened again.")
        with self._intents.alone():
            self._refuse_unseen(case, shown)
            self.campaign.reject(case, who, why=why, asked=asked)
        label = self.work.label(case)
        if label is not None:
            names = self.work.structures(label).values
            info = {"model": SENT_BACK, "params": {"label_names": dict(names)}}
            self._datastore().save_label(case, str(label.file), ORIGINAL, info)

    def remove_label(self, image: str, tag: str) -> None:
        """Remove a label; it is kept as a version.

        Raises:
            Conflict: another user holds the case, or its label is approved.
            InputError: the tag is the server's own.
        """
        self.sync()
        with self._intents.alone():
            self._refuse_change(image, tag)
            self._datastore().remove_label(self.case_of(image), tag)
        self.sync()

    def update_label_info(self, image: str, tag: str, info: Mapping[str, Any]) -> None:
        """Change a label's record.

        Raises:
            Conflict: another user holds the case, or its label is approved.
            InputError: the tag is the server's own, or the final label has a value that would have no name.
        """
        self.sync()
        self._refuse_change(image, tag)
        case, store = self.case_of(image), self._datastore()
        if tag == FINAL and (file := store.get_label_uri(case, tag)):
            info = with_names({**(store.get_label_info(case, tag) or {}), **info}, Path(file), labels=self._labels)
            require_named(Path(file), info, labels=())
        store.update_label_info(case, tag, dict(info))

    def _refuse_change(self, image: str, tag: str) -> None:
        _refuse_own_tag(tag)
        if tag == FINAL:
            case, caller = self.case_of(image), current_caller()
            self.campaign.task_of(case, self.who(case), anyones=caller.roles is not None and caller.may("reviewer"))

    def add_gold(self, case: str, truth: Path, who: str) -> None:
        """Make a case a hidden gold one, with the label that is its truth.

        Raises:
            NotFound: there is no such case or file.
        """
        self.sync()
        self.campaign.require(case)
        self.campaign.add_gold(case, who, truth_sha256=keep_truth(self._folder, case, truth))

    def title(self, case: str) -> str:
        """Return what people call a case: patient and description of a DICOM series, else its name."""
        info = self._datastore().get_image_info(case) if is_uid(case) else {}
        words = (str(info.get(word) or "") for word in ("PatientID", "SeriesDescription"))
        return " · ".join(word for word in words if word) or case

    def study_uid(self, case: str) -> str | None:
        """Return the DICOM study an image belongs to, or None."""
        store = self._datastore()
        names = store.dicom_names(case) or store.get_image_info(case)
        uid = names.get("StudyInstanceUID")
        return str(uid) if uid else None

    def teach(self, pupil: Callable[[Calibration], None]) -> None:
        """Call back with the calibration learnt from submitted labels, now and after each label, in a thread."""
        self._pupil = pupil
        self._thread.submit(self._teach)

    def wait(self) -> None:
        """Wait for all comparisons queued so far, and for images and labels that are being examined."""
        self._thread.submit(lambda: None).result()
        self.dropped.wait()
        if self._examiner.is_alive():
            self._examiner.join()

    def _compare_all(self, case: str, who: str, task: ReadingTask, tag: str) -> None:
        try:
            label = Path(self._datastore().get_label_uri(case, tag))
            self._compare_draft(case, who, tag, label)
            others = {ReadingTask.SECOND: self.work.final_label(case), ReadingTask.GOLD: find_truth(self._folder, case)}
            other = others.get(task)
            if other is not None:
                here = self._structures(case, label, tag)
                same = here.numbers_of(self._structures(case, other, FINAL)) if task is ReadingTask.SECOND else None
                found = compare_labels(label, other, values=same)
                self.campaign.compared(case, {"against": str(task), "who": who, **found})
        except SlicecastError as error:
            logger.warning("The label of '%s' by %s was saved but could not be compared: %s", case, who, error)
        except Exception:  # a background thread's outermost boundary: it would be lost otherwise
            logger.exception("The label of '%s' by %s was saved but could not be compared", case, who)

    def _compare_draft(self, case: str, who: str, tag: str, label: Path) -> None:
        """Compare the structures of the model's first answer; the last one would be compared with itself."""
        draft = self.work.drafts.first(case, who)
        if draft is None:
            return
        features, axis = draft.record.get(SLICE_FEATURES) or {}, draft.record.get("axis")
        drafted, labelled = self.work.structures(draft).values, self._structures(case, label, tag).values
        same = {value: drafted[name] for name, value in labelled.items() if name in drafted} or None
        truths = slice_truths(draft.file, label, features=features, axis=axis, values=same) if features and axis else []
        compared = compare_labels(draft.file, label, values=same)
        found = {"against": "draft", "who": who, **compared, SLICE_FEATURES: truths}
        found["model_hash"] = draft.record.get("model_hash")
        self.campaign.compared(case, found)
        self.work.drafts.forget_first(case, who)
        self._teach()

    def _structures(self, case: str, label: Path, tag: str) -> Structures:
        return self.work.structures(MaskDraft(label, self._datastore().get_label_info(case, tag) or {}))

    def _teach(self) -> None:
        self._pupil(calibration(self.campaign.state()))

    def _fingerprint(self, case: str, tag: str) -> dict[str, Any]:
        file = Path(self._datastore().get_label_uri(case, tag))
        kept = list((file.parent.parent / VERSIONS / tag / case).glob("*.json"))
        return {"sha256": file_sha256(file), "version": len(kept) + 1}


def open_campaign_service(
    place: Path, *, datastore: Callable[[], StudiesDatastore], labels: Sequence[str] = ()
) -> CampaignService:
    """Open the campaign that lies in `place`, or begin it.

    Raises:
        ConfigError: a setting of `configs/campaign.yaml` cannot be used.
        ResourceError: the database cannot be opened.
    """
    return CampaignService(open_campaign(place), datastore=datastore, folder=place / FOLDER, labels=labels)


def _score(answer: Mapping[str, Any]) -> float | None:
    value = answer.get("weight")
    return float(value) if isinstance(value, int | float) else None


def _plain(who: str) -> str:
    """Turn a person's name into a part of a tag; different names stay different."""
    return f"{re.sub(r'[^A-Za-z0-9]+', '-', who)[:40].strip('-')}-{hashlib.sha256(who.encode()).hexdigest()[:6]}"


def _refuse_own_tag(tag: str) -> None:
    if str(tag).casefold().startswith(OWN_TAGS):
        raise InputError(f"The tag '{tag}' is one that the server gives to second readings. Submit under '{FINAL}'.")
