"""Images that cannot be segmented, with their reasons."""

import pytest
from builders import ball, scan

from slicecast.labelling.store import unusable
from slicecast.labelling.store.unusable import ScanChecks, nested_volumes
from slicecast.volume import write_volume


@pytest.fixture
def studies(tmp_path):
    write_volume(tmp_path / "good.nii.gz", scan(ball()))
    (tmp_path / "empty.nii.gz").touch()
    return tmp_path


def test_each_file_is_examined_once_until_it_changes(studies, monkeypatch):
    seen = []
    check = unusable.check_scan
    monkeypatch.setattr(unusable, "check_scan", lambda path: (seen.append(path.name), check(path)))
    checks = ScanChecks(lambda name: studies / f"{name}.nii.gz")
    for _ in range(2):
        assert checks.examine(["good", "empty", "gone"]).keys() == {"empty", "gone"}
    assert sorted(seen) == ["empty.nii.gz", "gone.nii.gz", "good.nii.gz"]
    assert checks.known(["empty", "good", "never"]) == {"empty": checks.why_not("empty")}
    assert str(studies) not in checks.why_not("empty")
    (studies / "empty.nii.gz").write_bytes((studies / "good.nii.gz").read_bytes())
    assert checks.why_not("empty") == ""


def test_volumes_in_folders_are_reported(studies):
    for folder in ("a", "a/b", "labels/final", "campaign", ".hidden"):
        (studies / folder).mkdir(parents=True, exist_ok=True)
        (studies / folder / "x.nii.gz").touch()
    (studies / "a" / "y.nrrd").touch()
    found = nested_volumes(studies)
    assert found.keys() == {"a/", "a/b/"} and found["a/"].startswith("2 files such as x.nii.gz are not read")
