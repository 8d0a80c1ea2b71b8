"""Labels that were made elsewhere: which image each belongs to, whether it can be its label, and taking it in.

Read are NIfTI, NRRD, MHA and DICOM SEG, in a plain folder, in a Decathlon task or in an nnU-Net data set (`labelsTr`).
What is accepted is handed to `Save`, which enters it into the campaign: what is approved, held by somebody or labelled
already is not overwritten.
"""

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from slicecast.campaign.campaign import Campaign, existing_campaign
from slicecast.campaign.state import ReadingTask, Status
from slicecast.dicom.catalogue import Catalogue, is_dicom
from slicecast.dicom.seg import read_seg, referenced_series
from slicecast.dicom.series import Series
from slicecast.errors import Conflict, InputError, NotFound, VolumeError
from slicecast.inference.caller import Caller, calling
from slicecast.labelling.campaign.service import CampaignService, open_campaign_service
from slicecast.labelling.store.labels import FINAL, check_label
from slicecast.labelling.store.studies import StudiesDatastore
from slicecast.labelling.store.unusable import ScanChecks
from slicecast.volume import Geometry, read_volume, write_mask
from slicecast.volume.dicom import DAMAGED, require_small_unpacked
from slicecast.volume.reading import (
    DESCRIPTION,
    WRITTEN_ENDINGS,
    dataset_description,
    stem_of,
    value_names,
    without_folders,
)

LABELS_FOLDER = "labelsTr"

CHANNEL = "_0000"  # How nnU-Net marks the first channel of an image; its label's name goes without

_MARK = re.compile(r"[._-](seg|segmentation|label|labels|mask|gt)$", re.IGNORECASE)
"""What programs add to an image's name for its label."""

Names = Mapping[int, str]  # The name of each value


@dataclass(frozen=True, slots=True)
class LabelFile:
    """A label that was found."""

    path: Path  # NIfTI, NRRD, MHA or DICOM SEG
    stem: str  # its name without ending, or that of the image with which `dataset.json` pairs it


@dataclass(frozen=True, slots=True)
class FoundLabels:
    """The labels of a folder."""

    files: tuple[LabelFile, ...]  # sorted by path
    passed_over: int  # number of files that are no labels
    names: Names  # of the values, where the folder's `dataset.json`, or the one beside it, says them


@dataclass(frozen=True, slots=True)
class ImportRow:
    """What became of one label."""

    file: Path
    image: str  # the image's id; "" where none was found
    outcome: str  # what it holds, or why it was refused
    refused: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class AcceptedLabel:
    """A label that fits its image."""

    image: str
    array: NDArray[np.uint8]  # uint8 [k, j, i]
    grid: Geometry  # the image's own
    names: Mapping[str, int]
    source: str  # name of the file that it came from

    def info(self) -> dict[str, Any]:
        """Return the record that is saved with it."""
        return {"label_info": [{"name": name, "idx": n} for name, n in self.names.items()], "imported": self.source}

    def in_words(self) -> str:
        """Say its structures and their volumes."""
        counts = np.bincount(self.array.ravel(), minlength=256)
        unit = self.grid.voxel_volume_ml
        sizes = [f"{name} {counts[value] * unit:.3g} ml" for name, value in self.names.items() if counts[value]]
        return ", ".join(sizes) or "empty"


Save = Callable[[AcceptedLabel], None]  # Takes a label in; raises a SlicecastError where it must not


@dataclass(frozen=True, slots=True)
class ImportNames:
    """Where the names of values come from."""

    chosen: Names = field(default_factory=dict)  # said by the user; they come before all others
    otherwise: Names = field(default_factory=dict)  # for folders and files that name nothing themselves

    def of(self, own: Names) -> dict[str, int]:
        """Return the values by name, of a label that has names of its own.

        Raises:
            InputError: two values have the same name.
        """
        base = own or self.otherwise
        kept = {value: name for value, name in base.items() if name not in self.chosen.values()}
        named = {**kept, **self.chosen}
        twice = sorted({name for name in named.values() if list(named.values()).count(name) > 1})
        if twice:
            raise InputError(f"Several values have the name '{twice[0]}'. Give each its own with --map.")
        return {name: value for value, name in sorted(named.items())}


class Images:
    """The images of a studies folder, found by name or DICOM series; nothing is written to the studies."""

    def __init__(self, studies: Path, work: Path) -> None:
        visible = [path for path in sorted(studies.iterdir()) if path.is_file() and not path.name.startswith(".")]
        self._files = {stem_of(path): path for path in visible if stem_of(path) != path.name}
        self._catalogue = Catalogue(studies, lambda: self._files, work, skip=(studies / "labels",))
        self._names: dict[str, set[str]] = {name: {name} for name in self._files}
        for uid, series in self._catalogue.dicom_series().items():
            if series.image_id:
                for name in {uid, str(series.summary.get("PatientID", "")), _folder_of(series)} - {""}:
                    self._names.setdefault(name, set()).add(uid)

    def named(self, stem: str) -> str:
        """Return the id of the image that a label's name belongs to.

        Raises:
            NotFound: there is none.
            InputError: there are several.
        """
        for name in (stem, _MARK.sub("", stem)):
            for candidate in (name, f"{name}{CHANNEL}", name.removesuffix(CHANNEL)):
                found = sorted(self._names.get(candidate, ()))
                if len(found) > 1:
                    raise InputError(f"The name fits {len(found)} images: {', '.join(found[:3])}. Rename the label.")
                if found:
                    return found[0]
        raise NotFound("No image has that name.")

    def series(self, uid: str) -> Series:
        """Return the series that a DICOM SEG refers to; raises NotFound if it is not among the images."""
        series = self._catalogue.of_image(uid) if uid else None
        if series is None or series.image_id is None:
            raise NotFound(f"It refers to the series {uid or '(none)'}, which is not among the images.")
        return series

    def grid(self, image: str) -> Geometry:
        """Return an image's own grid; raises VolumeError if the image cannot be read."""
        path = self._path(image)
        try:
            with without_folders(path, "The image"):
                return read_volume(path).geometry
        except VolumeError as error:
            raise VolumeError(f"The image itself cannot be used. {error}") from error

    def ids(self) -> list[str]:
        """Return the ids of all images."""
        series = self._catalogue.dicom_series().items()
        return [*self._files, *(uid for uid, one in series if one.image_id)]

    def unusable(self) -> dict[str, str]:
        """Return the images that cannot be segmented, each with its reason."""
        return ScanChecks(self._path).examine(self.ids())

    def _path(self, image: str) -> Path:
        return self._files.get(image) or self.series(image).scan_path()


def find_labels(folder: Path) -> FoundLabels:
    """Find the labels of a folder and of those below it; of a data set, those of `labelsTr`.

    Raises:
        NotFound: there is no such folder, or no label in it.
    """
    if not folder.is_dir():
        raise NotFound(f"There is no folder {folder}. Give the one that holds the labels.")
    root = folder / LABELS_FOLDER if (folder / LABELS_FOLDER).is_dir() else folder
    paths = [path for path in sorted(root.rglob("*")) if path.is_file() and not _is_hidden(path.relative_to(root))]
    labels = [path for path in paths if stem_of(path) != path.name or _is_seg(path)]
    if not labels:
        raise NotFound(f"{root} holds no label. Read are {', '.join(WRITTEN_ENDINGS)} and DICOM SEG.")
    listed = dataset_description(folder)
    pairs = _pairs(listed)
    files = tuple(LabelFile(path, pairs.get(path.name, stem_of(path))) for path in labels)
    passed_over = sum(1 for path in paths if path.name != DESCRIPTION) - len(labels)
    return FoundLabels(files, passed_over, value_names(listed))


def import_labels(found: FoundLabels, images: Images, names: ImportNames, *, save: Save) -> Iterator[ImportRow]:
    """Take labels in one by one, and say of each what became of it; a refused one changes nothing.

    Args:
        save: called with each label that fits its image.
    """
    taken: dict[str, Path] = {}
    for file in found.files:
        image = ""
        try:
            with tempfile.TemporaryDirectory() as folder:
                image, volume, own = _matched(file, images, Path(folder), found.names)
                if image in taken:
                    raise InputError(f"The label {taken[image].name} belongs to the same image. Remove one.")
                grid, named = images.grid(image), names.of(own)
                array = check_label(volume, grid, named)
                label = AcceptedLabel(image, array, grid, named, file.path.name)
                save(label)
        except (InputError, NotFound, Conflict) as error:
            yield ImportRow(file.path, image, str(error), refused=True)
        else:
            taken[image] = file.path
            yield ImportRow(file.path, image, label.in_words())


def _matched(file: LabelFile, images: Images, folder: Path, own: Names) -> tuple[str, Path, Names]:
    """Return a label's image, its file as a volume, and the names that it has by itself."""
    if stem_of(file.path) != file.path.name:
        return images.named(file.stem), file.path, own
    data = _read_dicom(file.path)
    series = images.series(referenced_series(data))
    shown = read_volume(series.scan_path()).geometry
    mask, labels = read_seg(data, shown)
    volume = write_mask(folder / "label.nrrd", mask, shown)
    return str(series.image_id), volume, {value: name for name, value in labels.items()}


def _read_dicom(path: Path) -> Dataset:
    content = BytesIO(path.read_bytes())
    try:
        require_small_unpacked(content)
        return dcmread(content)
    except InputError:
        raise
    except DAMAGED as error:
        raise VolumeError(f"The DICOM file cannot be read ({str(error)[:80]}). Export it again.") from error


def _is_seg(path: Path) -> bool:
    """Tell whether a file is a DICOM SEG; of one that is damaged, too, so that it is reported."""
    if not is_dicom(path):
        return False
    try:
        return str(dcmread(path, stop_before_pixels=True, specific_tags=["Modality"]).get("Modality")) == "SEG"
    except DAMAGED:
        return True


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _folder_of(series: Series) -> str:
    """Return the name of the folder that holds a series of DICOM files."""
    files = getattr(series, "files", {})
    folders = {path.parent for path in files.values()}
    return folders.pop().name if len(folders) == 1 else ""


def _pairs(listed: Mapping[str, Any]) -> dict[str, str]:
    """Return the image's name of each label that a Decathlon task lists."""
    training = listed.get("training")
    entries = [entry for entry in training if isinstance(entry, dict)] if isinstance(training, list) else []
    return {
        Path(str(entry["label"])).name: stem_of(Path(str(entry["image"])))
        for entry in entries
        if {"image", "label"} <= entry.keys()
    }


@dataclass(frozen=True, slots=True)
class ImportRules:
    """How labels are to be taken in."""

    who: str  # whose labels they are
    tag: str = FINAL  # `final`, or `original` for a start from which annotators go on
    replace: bool = False  # also where an image has a label under that tag


def dry_run(studies: Path, rules: ImportRules) -> Save:
    """Return a function that refuses what an import would refuse, and saves nothing."""
    campaign = existing_campaign(studies)
    return lambda label: admit(label.image, campaign, studies, rules)


@contextmanager
def importing(studies: Path, rules: ImportRules) -> Iterator[Save]:
    """Open the studies and their campaign for an import; the server may run meanwhile."""
    store = StudiesDatastore(str(studies), labels=(), extensions=[f"*{ending}" for ending in WRITTEN_ENDINGS])
    service = open_campaign_service(studies, datastore=lambda: store)
    try:
        yield lambda label: _save(label, service, store, studies, rules)
        service.wait()
    finally:
        store.deliveries.close()
        store.deliveries.deliver_all()
        service.campaign.store.close()


def admit(image: str, campaign: Campaign | None, studies: Path, rules: ImportRules) -> None:
    """Check that an image may get a label.

    Raises:
        Conflict: it is approved, somebody holds it, or it has a label already.
    """
    if campaign is not None and rules.tag == FINAL:
        case = campaign.state().case(image)
        if case.status is Status.APPROVED:
            raise Conflict("Its label is approved and stays. Reject it in review first.")
        if case.gold:
            raise Conflict("It is a hidden gold case. Set its truth with `slicecast campaign add-gold`.")
        if campaign.task_of(image, rules.who) is not ReadingTask.ANNOTATE:
            raise Conflict("It is being read a second time. Hand it back first.")
    folder = studies / "labels" / rules.tag
    if not rules.replace and folder.is_dir() and any(stem_of(path) == image for path in folder.iterdir()):
        raise Conflict(f"It has a label '{rules.tag}' already. Say --replace to replace it; the old one is kept.")


def _save(
    label: AcceptedLabel, service: CampaignService, store: StudiesDatastore, studies: Path, rules: ImportRules
) -> None:
    store.refresh()  # a running server may have written since
    admit(label.image, service.campaign, studies, rules)
    with tempfile.TemporaryDirectory() as folder, calling(Caller(name=rules.who)):
        file = write_mask(Path(folder) / "label.nii.gz", label.array, label.grid)
        service.save(label.image, file, tag=rules.tag, info=label.info(), client_id=rules.who)
