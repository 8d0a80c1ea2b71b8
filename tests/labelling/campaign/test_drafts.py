"""The last result of each person is kept."""

from slicecast.labelling.campaign.drafts import Drafts


def test_the_last_one_is_kept(tmp_path):
    drafts, mask = Drafts(tmp_path / "drafts"), tmp_path / "x.nrrd"
    for content, when_s in (b"one", 1.0), (b"two", 2.0):
        mask.write_bytes(content)
        drafts.keep("case", "ann", mask, {"when_s": when_s})
    found = drafts.find("case", "ann")
    assert found.file.read_bytes() == b"two" and found.record["who"] == "ann"
    assert len(list((tmp_path / "drafts").rglob("*.nrrd"))) == 1
    assert drafts.find("case", "bob") is None and drafts.find("other", "ann") is None


def test_the_newest_of_all(tmp_path):
    drafts, mask = Drafts(tmp_path), tmp_path / "x.nii.gz"
    mask.write_bytes(b"x")
    drafts.keep("case", "ann", mask, {"when_s": 5.0})
    drafts.keep("case", "../bob", mask, {"when_s": 4.0})
    assert drafts.latest("case").record["who"] == "ann" and drafts.latest("none") is None


def test_the_first_one_is_kept_until_it_is_forgotten(tmp_path):
    drafts, mask = Drafts(tmp_path), tmp_path / "x.nii.gz"
    for content in (b"one", b"two"):
        mask.write_bytes(content)
        drafts.keep("case", "ann", mask, {"when_s": 1.0})
        drafts.keep_first("case", "ann", mask, {"when_s": 9.0})
    assert drafts.latest("case").record["when_s"] == 1.0
    assert drafts.first("case", "ann").file.read_bytes() == b"one"
    drafts.forget_first("case", "ann")
    assert drafts.first("case", "ann") is None and drafts.find("case", "ann").file.read_bytes() == b"two"
    drafts.keep_first("case", "ann", mask, {"when_s": 2.0})
    assert drafts.first("case", "ann").file.read_bytes() == b"two"
