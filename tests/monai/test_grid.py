"""The stored grid is read from the header."""

import pytest
from builders import phantom

from slicecast.errors import VolumeError
from slicecast.monai.grid import stored_geometry
from slicecast.volume import read_volume, write_volume


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("kind", ["oblique", "flipped"])
def test_it_is_the_volumes_grid(tmp_path, ending, kind):
    file = write_volume(tmp_path / f"a{ending}", phantom(kind).volume)
    assert stored_geometry(file).differences(read_volume(file).geometry) == []


def test_a_damaged_file_is_explained(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(b"no volume at all")
    with pytest.raises(VolumeError):
        stored_geometry(tmp_path / "a.nii.gz")
    with pytest.raises(VolumeError, match="There is no file"):
        stored_geometry(tmp_path / "absent.nii.gz")
