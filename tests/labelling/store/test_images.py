"""Images are named by id; no path from outside is opened."""

import tempfile

import pytest
from labelserver import upload_name

from slicecast.errors import InputError, UnknownImage
from slicecast.labelling.store.studies import StudiesDatastore, find_image
from slicecast.labelling.store.uploads import is_upload


@pytest.fixture
def store(studies):
    return StudiesDatastore(str(studies), extensions=["*.nii.gz"])


def test_by_id(store, studies):
    found = find_image({"image": "first"}, store)
    assert (found.path, found.id) == (studies / "first.nii.gz", "first")


@pytest.mark.parametrize("name", ["", None, 7, ["first"], {"id": "first"}])
def test_no_image(store, name):
    with pytest.raises(UnknownImage, match="names no image"):
        find_image({"image": name}, store)


def test_unknown_id_with_a_hint(store):
    with pytest.raises(UnknownImage, match=r"no image 'frist' in the studies\. Did you mean 'first'"):
        find_image({"image": "frist"}, store)
    with pytest.raises(UnknownImage, match=r"no image '\.\.' in the studies"):
        find_image({"image": ".."}, store)


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../first.nii.gz", "labels/final/first", "..\\first", "./first.nii.gz"]
)
def test_paths_are_refused(store, studies, monkeypatch, name):
    monkeypatch.chdir(studies)
    with pytest.raises(InputError, match="is a path"):
        find_image({"image": name}, store, sessions=studies.parent / "sessions")


def test_a_path_into_the_studies_is_refused_too(store, studies):
    with pytest.raises(InputError, match="is a path"):
        find_image({"image": str(studies / "first.nii.gz")}, store)


def test_a_file_of_the_working_folder_is_not_an_image(store, studies, monkeypatch):
    """MONAI Label takes any name that exists in the server's working folder for a path."""
    (studies.parent / "first").write_text("not an image")
    monkeypatch.chdir(studies.parent)
    assert find_image({"image": "first"}, store).path == studies / "first.nii.gz"


def test_a_session_and_nothing_beside_it(store, tmp_path):
    sessions = tmp_path / "sessions"
    image = sessions / "1b4e28ba-2fa1-11d2-883f-0016d3cca427" / "volume.nrrd"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"x")
    assert find_image({"image": str(image)}, store, sessions=sessions).id is None
    with pytest.raises(InputError, match="is a path"):
        find_image({"image": f"{sessions}/../studies/first.nii.gz"}, store, sessions=sessions)
    link = sessions / "link.nrrd"
    link.symlink_to("/etc/passwd")
    with pytest.raises(InputError, match="is a path"):
        find_image({"image": str(link)}, store, sessions=sessions)


def test_an_uploaded_file(store, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    upload = upload_name(".nii.gz")
    upload.write_bytes(b"x")
    assert find_image({"image": str(upload)}, store).path == upload
    secret = tmp_path / "secret.nii.gz"
    secret.write_bytes(b"x")
    assert not is_upload(secret)
    (tmp_path / "tmpabcdefgh").symlink_to("/etc/passwd")
    assert not is_upload(tmp_path / "tmpabcdefgh")
