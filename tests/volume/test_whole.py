"""A file that ITK cut short is noticed, whatever its format: on a full disk ITK says nothing."""

import numpy as np
import pytest

from slicecast.volume import Geometry, Volume, write_volume
from slicecast.volume.whole import is_whole

NOISE = np.random.default_rng(0).integers(0, 200, (5, 6, 7)).astype(np.int16)


@pytest.mark.parametrize("array", [NOISE, np.zeros_like(NOISE)])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("compress", [True, False])
def test_every_cut_is_noticed(tmp_path, array, ending, compress):
    file = write_volume(tmp_path / f"scan{ending}", Volume(array, Geometry((7, 6, 5))), compress=compress)
    content = file.read_bytes()
    assert is_whole(file, ending, array.nbytes)
    for length in range(len(content)):
        file.write_bytes(content[:length])
        assert not is_whole(file, ending, array.nbytes)


def test_what_was_cut_is_not_written(tmp_path, monkeypatch):
    target = tmp_path / "scan.nii.gz"
    target.write_bytes(b"as it was")
    monkeypatch.setattr("slicecast.volume.reading.sitk.WriteImage", lambda image, part, **how: None)
    with pytest.raises(OSError, match="no room"):
        write_volume(target, Volume(NOISE, Geometry((7, 6, 5))))
    assert target.read_bytes() == b"as it was" and list(tmp_path.iterdir()) == [target]
