"""Which cases may be labelled, which are measured on, and what names a case."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slicecast.errors import ConfigError
from slicecast_lab.evaluation.cases import CaseFiles, find_cases

TEST_SHARE = 4
"""Without a split of its own, about one case in so many of a set is for testing, chosen by its name."""

POOL, TEST = "pool", "test"


@dataclass(frozen=True, slots=True)
class Split:
    """The cases to choose among, and those to measure on; they share no group."""

    pool: Sequence[CaseFiles]
    test: Sequence[CaseFiles]


def has_split(folder: Path) -> bool:
    """Tell whether a set says itself which cases are for testing."""
    return (folder / "split.json").is_file()


def find_split(folder: Path, values: Sequence[int], *, pool: int = 0, test: int = 0) -> Split:
    """Return the first cases of `split.json`'s pool and test; without that file, cases are divided by their names.

    Args:
        pool, test: at most so many; 0 for all.

    Raises:
        ConfigError: the folder has not the expected layout, or one part is empty.
    """
    if has_split(folder):
        return Split(
            find_cases(folder, values, split=POOL, limit=pool), find_cases(folder, values, split=TEST, limit=test)
        )
    chosen: dict[bool, list[CaseFiles]] = {False: [], True: []}
    for files in find_cases(folder, values):
        chosen[hashlib.sha256(files.group.encode()).digest()[0] % TEST_SHARE == 0].append(files)
    if not (chosen[False] and chosen[True]):
        raise ConfigError(f"{folder} has too few cases to divide. Name them in split.json, as pool and test.")
    return Split(chosen[False][: pool or None], chosen[True][: test or None])


def content_of(files: CaseFiles) -> tuple:
    """Return what names a case: its files' bytes, and which voxels are the object."""
    digests = [hashlib.sha256(file.read_bytes()).hexdigest()[:24] for file in (files.image, files.label)]
    return files.id, files.group, files.values, *digests
