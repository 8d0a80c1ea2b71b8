"""DICOMweb over a folder of volumes, as OHIF asks and as dicomweb-client does."""

import io

import numpy as np
import pydicom
import pytest
from requests_toolbelt.multipart.decoder import MultipartDecoder

from slicecast.dicom.seg import SegNames, write_seg
from slicecast.server.dependencies import labelling_app
from slicecast.server.errors import NotAcceptable
from slicecast.server.ohif.dicomweb import require_accepted
from slicecast.volume import read_volume

OHIF = "/proxy/dicom"


def parts(answer):
    assert answer.status_code == 200, answer.text
    return MultipartDecoder(answer.content, answer.headers["content-type"]).parts


@pytest.fixture
def first(client):
    """The study, series and instances of the image `first`."""
    (row,) = client.get(f"{OHIF}/qido/series", params={"PatientID": "first", "Modality": "MR"}).json()
    study, series = row["0020000D"]["Value"][0], row["0020000E"]["Value"][0]
    return f"/studies/{study}", f"/studies/{study}/series/{series}"


def test_studies_are_found_as_ohif_asks(client):
    asked = {"limit": "101", "offset": "0", "fuzzymatching": "true", "includefield": "00081030,00080060"}
    found = client.get(f"{OHIF}/qido/studies", params=asked)
    assert found.headers["content-type"] == "application/dicom+json"
    assert {row["00100020"]["Value"][0] for row in found.json()} == {"first", "second"}
    assert found.json()[0]["00080061"]["Value"] == ["MR"]
    for name, count in (("*IRS*", 1), ("fir?t", 1), ("nobody", 0)):
        assert len(client.get(f"{OHIF}/qido/studies", params={"00100010": name}).json()) == count
    assert len(client.get("/dicom-web/studies", params={"limit": "1"}).json()) == 1
    assert client.get("/dicom-web/studies", params={"limit": "x"}).status_code == 422


def test_headers_and_frames(client, first, studies):
    study, series = first
    headers = client.get(f"{OHIF}/wado{study}/metadata").json()
    volume = read_volume(studies / "first.nii.gz")
    assert len(headers) == volume.geometry.size_ijk[2]
    assert headers[3]["00200032"]["Value"] == pytest.approx(list(volume.geometry.index_to_world((0, 0, 3))), abs=1e-4)
    uid = headers[3]["00080018"]["Value"][0]
    (part,) = parts(client.get(f"{OHIF}/wado{series}/instances/{uid}/frames/1"))
    assert b"1.2.840.10008.1.2.1" in part.headers[b"Content-Type"]
    assert np.array_equal(np.frombuffer(part.content, np.int16).reshape(volume.array.shape[1:]), volume.array[3])
    (whole,) = parts(client.get(f"{OHIF}/wado{series}/instances/{uid}"))
    assert pydicom.dcmread(io.BytesIO(whole.content)).SOPInstanceUID == uid
    assert len(parts(client.get(f"/dicom-web{series}"))) == len(headers)
    assert client.get(f"/dicom-web{series}/instances/{uid}/rendered").content[:2] == b"\xff\xd8"


def test_wado_uri(client, first):
    study, series = (path.rpartition("/")[2] for path in first)
    uid = client.get(f"/dicom-web{first[1]}/instances").json()[0]["00080018"]["Value"][0]
    asked = {"requestType": "WADO", "studyUID": study, "seriesUID": series, "objectUID": uid}
    assert pydicom.dcmread(io.BytesIO(client.get(f"{OHIF}/wado", params=asked).content)).InstanceNumber == 1


@pytest.mark.parametrize(
    "path", ["/studies/1.2/metadata", "/studies/1.2/series/3.4", "/studies/1.2/series/3/instances/4/frames/1"]
)
def test_what_is_not_there(client, path):
    answer = client.get(f"/dicom-web{path}")
    assert answer.status_code == 404 and "Ask for" in answer.json()["detail"]


def test_wrong_frames(client, first):
    uid = client.get(f"/dicom-web{first[1]}/instances").json()[0]["00080018"]["Value"][0]
    assert client.get(f"/dicom-web{first[1]}/instances/{uid}/frames/2").status_code == 404
    for numbers, why in (("x", "no whole numbers"), ("9" * 5000, "no whole numbers"), (",".join("1" * 9000), "twice")):
        answer = client.get(f"/dicom-web{first[1]}/instances/{uid}/frames/{numbers}")
        assert answer.status_code == 422 and why in answer.json()["detail"]
    assert client.get(f"/dicom-web{first[1]}/instances/{uid}/bulkdata/zz").status_code == 422


def stow(client, *contents):
    body = b"".join(b"--xYx\r\nContent-Type: application/dicom\r\n\r\n" + one + b"\r\n" for one in contents)
    kind = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=xYx'}
    return client.post(f"{OHIF}/wado/studies", content=body + b"--xYx--\r\n", headers=kind)


def test_other_objects_are_not_stored(client, first):
    (image, *_) = parts(client.get(f"/dicom-web{first[1]}"))
    answer = stow(client, image.content)
    assert answer.status_code == 409
    assert answer.json()["00081198"]["Value"][0]["00081197"]["Value"] == [0x0122]
    assert client.post("/dicom-web/studies", content=b"x", headers={"Content-Type": "text/plain"}).status_code == 422


def test_a_damaged_segmentation_does_not_keep_others_from_being_stored(client):
    series = labelling_app().datastore().catalogue.of_image("second")
    scan = read_volume(series.scan_path())

    def sent(number, *, damaged=False):
        names = SegNames({"spleen": 1}, "1", f"1.2.3.{number}")
        data, stream = write_seg((scan.array > 70).astype(np.uint8), scan.geometry, series, names), io.BytesIO()
        if damaged:
            del data.PerFrameFunctionalGroupsSequence
        data.save_as(stream, write_like_original=False)
        return stream.getvalue()

    answer = stow(client, sent(1), sent(2, damaged=True), sent(3))
    assert answer.status_code == 202
    assert [one["00081155"]["Value"] for one in answer.json()["00081199"]["Value"]] == [["1.2.3.1.1"], ["1.2.3.3.1"]]
    (refused,) = answer.json()["00081198"]["Value"]
    assert (refused["00081155"]["Value"], refused["00081197"]["Value"]) == (["1.2.3.2.1"], [0xC000])


@pytest.mark.parametrize(
    ("accept", "given", "fits"),
    [
        ("", "image/jpeg", True),
        ("*/*", "image/jpeg", True),
        ("image/png, image/*;q=0.5", "image/jpeg", True),
        ("image/png", "image/jpeg", False),
        ("application/json", "application/dicom+json", True),
        ("application/dicom+xml", "application/dicom+json", False),
        (
            'multipart/related; type="application/dicom"',
            'multipart/related; type="application/dicom"; boundary=x',
            True,
        ),
        ("multipart/related; type=image/jp2", 'multipart/related; type="application/dicom"; boundary=x', False),
        ("multipart/related; type=application/octet-stream", 'multipart/related; type="image/jls"; boundary=x', True),
    ],
)
def test_what_a_client_does_not_accept_is_not_sent(accept, given, fits):
    if fits:
        require_accepted(accept, given)
    else:
        with pytest.raises(NotAcceptable, match="leaves out"):
            require_accepted(accept, given)


def test_406(client):
    answer = client.get("/dicom-web/studies", headers={"accept": "application/dicom+xml"})
    assert answer.status_code == 406 and "application/dicom+json" in answer.json()["detail"]
