"""Series of every kind, as a scanner or a converter leaves them."""

from pathlib import Path

import numpy as np
import pytest
from builders import phantom

from slicecast.dicom.catalogue import Catalogue
from slicecast.dicom.series import Series
from slicecast.volume import Volume, write_volume


@pytest.fixture
def series_of(tmp_path: Path):
    """Return the series as which a volume is served."""

    def make(volume: Volume, name: str = "case.nii.gz", **options: object) -> Series:
        path = write_volume(tmp_path / name, volume)
        return Catalogue(tmp_path, lambda: {"case": path}, tmp_path / ".work", **options).volume_series()[0]

    return make


@pytest.fixture
def write_series():
    """Write a series' instances as files."""

    def write(series: Series, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for uid in series.sop_uids:
            series.read(uid).save_as(folder / f"{uid}.dcm", write_like_original=False)
        return folder

    return write


@pytest.fixture
def labels_of():
    """Make a mask with the values 3 and 7 on a volume's grid."""

    def make(volume: Volume) -> np.ndarray:
        mask = np.zeros(volume.array.shape, np.uint8)
        mask[2:6, 4:9, 5:12] = 3
        mask[4:8, 9:14, 5:12] = 7
        return mask

    return make


@pytest.fixture
def sphere() -> Volume:
    """A ball of 24 x 20 x 16 voxels."""
    return phantom().volume
