"""Where a set keeps its scans and labels: this project's layout, the Medical Segmentation Decathlon's, and BraTS's."""

from dataclasses import dataclass
from pathlib import Path

from slicecast.errors import ConfigError
from slicecast.volume.reading import READ_ENDINGS

FOLDERS = (("images", "labels"), ("imagesTr", "labelsTr"))
"""Ours; the Decathlon's, whose test scans come without labels."""

BRATS_IMAGE = "_flair"
"""Of the four contrasts the one that shows the whole tumour best."""

BRATS_LABELS = ("_seg", "_segm")
"""The second is how one case of BraTS 2020 is misnamed."""


@dataclass(frozen=True, slots=True)
class SeedSet:
    """One column of the published study's table: its name and the folders it is looked for in."""

    name: str
    folders: tuple[str, ...]


SEED_SETS = (
    SeedSet("BraTS2020", ("MICCAI_BraTS2020_TrainingData", "BraTS2020_TrainingData", "BraTS2020", "brats2020")),
    SeedSet("Spleen", ("Task09_Spleen",)),
    SeedSet("Liver", ("Task03_Liver",)),
    SeedSet("Lung", ("Task06_Lung",)),
    SeedSet("Pancreas", ("Task07_Pancreas",)),
)


def find_seed_sets(root: Path) -> dict[str, Path]:
    """Return the folder of each set of the published study that lies in `root`, or one level deeper, by name.

    Raises:
        ConfigError: there is none.
    """
    found = {}
    for item in SEED_SETS:
        places = [p for name in item.folders for p in (root / name, *sorted(root.glob(f"*/{name}"))) if p.is_dir()]
        if places:
            found[item.name] = places[0]
    if not found:
        wanted = ", ".join(item.folders[0] for item in SEED_SETS)
        raise ConfigError(f"{root} holds none of the study's sets. Put there one or more of {wanted}, as unpacked.")
    return found


def scans_and_labels(folder: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return the scans and the labels of a set, each by case.

    Raises:
        ConfigError: the folder has none of the known layouts.
    """
    for images, labels in FOLDERS:
        if (folder / images).is_dir():
            return _by_name(folder / images), _by_name(folder / labels)
    scans, truths = _brats(folder)
    if not scans:
        raise ConfigError(
            f"There is no folder {folder / 'images'}. Evaluation needs images/ and labels/ side by side, imagesTr/ and "
            "labelsTr/ as in the Decathlon, or a folder for each case with *_flair and *_seg as in BraTS."
        )
    return scans, truths


def _by_name(folder: Path) -> dict[str, Path]:
    """Return the readable files of a folder by their names without ending."""
    if not folder.is_dir():
        raise ConfigError(f"There is no folder {folder}. Evaluation needs images/ and labels/ side by side.")
    names = {file: _stem(file) for file in sorted(folder.iterdir())}
    return {stem: file for file, stem in names.items() if stem and not stem.startswith(".")}


def _brats(folder: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    scans: dict[str, Path] = {}
    truths: dict[str, Path] = {}
    for case in sorted(folder.iterdir()) if folder.is_dir() else ():
        for file in sorted(case.iterdir()) if case.is_dir() else ():
            stem = _stem(file).lower()
            if stem.endswith(BRATS_IMAGE):
                scans[case.name] = file
            elif stem.endswith(BRATS_LABELS):
                truths[case.name] = file
    return scans, truths


def _stem(file: Path) -> str:
    """Return a readable file's name without its ending, else nothing."""
    endings = sorted(READ_ENDINGS, key=len, reverse=True)
    ending = next((e for e in endings if file.name.lower().endswith(e)), None)
    return file.name[: -len(ending)] if ending else ""
