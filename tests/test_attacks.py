"""Requests that try to read, write or fill what is not theirs: none does, and the server goes on as before."""

import io
import json
import zipfile
from pathlib import Path

import pytest
from labelserver import copy_app, serving, write_studies
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

SECRET = b"what nobody may read"

NAMES = {
    "upwards": "../../secret.nii.gz",
    "upwards, without ending": "../../secret",
    "encoded twice": "..%2f..%2fsecret.nii.gz",
    "absolute": "/etc/passwd",
    "this folder": ".",
    "folder above": "..",
    "hidden": ".lock",
    "the index": "datastore_v2.json",
    "NUL": "first\0.nii.gz",
    "newline": "first\nINFO forged line",
    "backslashes": "..\\..\\secret.nii.gz",
    "long": "x" * 5000,
    "unicode": "\u202e../secret",
    "a link that leads out": "outside",
    "home": "~/.ssh/id_rsa",
    "address": "http://127.0.0.1:1/x",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Studies and an app, a secret beside them, and a link to it in the studies."""
    folder = tmp_path_factory.mktemp("attacks")
    write_studies(folder / "all" / "studies")
    copy_app(folder / "all" / "app")
    (folder / "secret.nii.gz").write_bytes(SECRET)
    (folder / "all" / "studies" / "outside.nii.gz").symlink_to(folder / "secret.nii.gz")
    return folder


@pytest.fixture(scope="module")
def client(place: Path):
    with serving(place / "all" / "app", place / "all" / "studies", {"labels": "spleen,liver"}) as client:
        yield client


def outside(place: Path) -> dict[str, bytes]:
    """All files around the studies and the app."""
    files = [file for file in place.rglob("*") if file.is_file() and not file.is_relative_to(place / "all")]
    return {str(file): file.read_bytes() for file in files}


def strays(place: Path) -> set[str]:
    """What lies beside the studies and the app."""
    return {entry.name for entry in (place / "all").iterdir()} - {"studies", "app"}


ROUTES = {
    "infer": lambda c, n: c.post("/infer/sam2", params={"image": n}, data={"params": '{"foreground": [[12,10,8]]}'}),
    "infer model": lambda c, n: c.post(f"/infer/{quoted(n)}", params={"image": "first"}),
    "infer session": lambda c, n: c.post("/infer/sam2", params={"session_id": n}, data={"params": "{}"}),
    "infer label path": lambda c, n: c.post("/infer/sam2", params={"image": "first"}, data=params(label=n)),
    "infer label file": lambda c, n: c.post("/infer/sam2", params={"image": "first"}, data=params(label_file=n)),
    "infer tag": lambda c, n: c.post(
        "/infer/sam2_single",
        params={"image": "first"},
        data=params(foreground=[[12, 10, 8]], save_label=True, label_tag=n),
    ),
    "infer extension": lambda c, n: c.post(
        "/infer/sam2_single", params={"image": "first"}, data=params(foreground=[[12, 10, 8]], result_extension=n)
    ),
    "infer upload name": lambda c, n: c.post("/infer/sam2", data={"params": "{}"}, files={"file": (n, b"x")}),
    "automatic": lambda c, n: c.post("/infer/", params={"image": n}),
    "image": lambda c, n: c.get("/datastore/image", params={"image": n}),
    "image check": lambda c, n: c.head("/datastore/image", params={"image": "first", "check_sum": n}),
    "image info": lambda c, n: c.put("/datastore/image/info", params={"image": n}, data={"info": "{}"}),
    "upload id": lambda c, n: c.put("/datastore/image", params={"image": n}, files={"file": ("a.nii.gz", b"x")}),
    "upload name": lambda c, n: c.put("/datastore/", files={"file": (n, b"x")}),
    "label": lambda c, n: c.get("/datastore/label", params={"label": n, "tag": "final"}),
    "label tag": lambda c, n: c.get("/datastore/label", params={"label": "first", "tag": n}),
    "label info": lambda c, n: c.put("/datastore/label/info", params={"label": "first", "tag": n}, data={"info": "{}"}),
    "save id": lambda c, n: c.put("/datastore/label", params={"image": n}, files={"label": ("a.nii.gz", b"x")}),
    "save tag": lambda c, n: c.put(
        "/datastore/label", params={"image": "first", "tag": n}, files={"label": ("a.nii.gz", b"x")}
    ),
    "save name": lambda c, n: c.put("/datastore/label", params={"image": "first"}, files={"label": (n, b"x")}),
    "remove image": lambda c, n: c.delete("/datastore/image", params={"id": n}),
    "remove label": lambda c, n: c.delete("/datastore/label", params={"id": "first", "tag": n}),
    "session": lambda c, n: c.get(f"/session/{quoted(n)}", params={"image": True}),
    "session removal": lambda c, n: c.delete(f"/session/{quoted(n)}"),
    "session upload": lambda c, n: c.put("/session/", files=[("files", (n, b"x")), ("files", ("b", b"y"))]),
    "session archive": lambda c, n: c.put(
        "/session/", params={"uncompress": True}, files={"files": ("a.zip", archive(n))}
    ),
    "open session": lambda c, n: c.post("/slicecast/sessions", json={"image": n}),
    "see session": lambda c, n: c.get(f"/slicecast/sessions/{quoted(n)}"),
    "strategy": lambda c, n: c.post(f"/activelearning/{quoted(n)}", json={"strategy": n, "client_id": n}),
    "model": lambda c, n: c.get(f"/model/{quoted(n)}"),
    "model info": lambda c, n: c.get(f"/model/info/{quoted(n)}"),
    "batch": lambda c, n: c.post(f"/batch/infer/{quoted(n)}", json={}),
    "train": lambda c, n: c.post(f"/train/{quoted(n)}", json={}),
    "ohif": lambda c, n: c.get(f"/ohif/{quoted(n)}"),
    "static": lambda c, n: c.get(f"/static/{quoted(n)}"),
    "proxy": lambda c, n: c.get(f"/proxy/dicom/{quoted(n)}"),
    "dicomweb series": lambda c, n: c.get(f"/dicom-web/studies/{quoted(n)}/series/{quoted(n)}/metadata"),
    "dicomweb frames": lambda c, n: c.get(f"/dicom-web/studies/1/series/2/instances/3/frames/{quoted(n)}"),
    "dicomweb wado": lambda c, n: c.get("/dicom-web/wado", params={"requestType": "WADO", "objectUID": n}),
    "dicomweb store": lambda c, n: c.post(f"/dicom-web/studies/{quoted(n)}", **stow(n)),
    "campaign case": lambda c, n: c.get(f"/campaign/case/{quoted(n)}"),
    "campaign strip": lambda c, n: c.get(f"/campaign/case/{quoted(n)}/strip.png"),
    "campaign button": lambda c, n: c.post(f"/campaign/case/{quoted(n)}/{quoted(n)}"),
}


def quoted(name: str) -> str:
    return "".join(f"%{byte:02x}" for byte in name.encode())


def params(**content) -> dict[str, str]:
    return {"params": json.dumps(content)}


def archive(name: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        packed.writestr(name, b"evil")
        packed.writestr("b.dcm", b"evil")
    return stream.getvalue()


def stow(name: str) -> dict:
    """A DICOM object whose UIDs are a path."""
    data, stream = Dataset(), io.BytesIO()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.is_little_endian, data.is_implicit_VR = True, False
    data.add_new("SOPClassUID", "LO", "1.2.840.10008.5.1.4.1.1.66.4")
    for tag in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        data.add_new(tag, "LO", name[:60].replace("\\", "/").replace("\0", ""))
    data.save_as(stream, write_like_original=True)
    body = b"--x\r\nContent-Type: application/dicom\r\n\r\n" + stream.getvalue() + b"\r\n--x--\r\n"
    return {"content": body, "headers": {"Content-Type": 'multipart/related; type="application/dicom"; boundary=x'}}


FEW = ("upwards", "absolute", "folder above", "NUL", "a link that leads out", "long")


@pytest.mark.filterwarnings("ignore")  # pydicom's, about the odd values that the attack makes
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("names", [FEW, pytest.param(tuple(NAMES), marks=pytest.mark.slow)], ids=["few", "all"])
def test_no_name_leads_out(client, place, route, names):
    before = outside(place)
    for what in names:
        name = NAMES[what]
        answer = ROUTES[route](client, name)
        assert answer.status_code != 500, (what, answer.text)
        assert SECRET not in answer.content and b"root:" not in answer.content, what
        assert outside(place) == before and strays(place) == set(), what
    assert client.get("/healthz").status_code == client.get("/datastore/?output=all").status_code == 200


def test_a_file_that_names_another_is_not_followed(client, place):
    secret = place / "secret.nii.gz"
    header = f"NRRD0005\ntype: uint8\ndimension: 3\nsizes: 2 2 2\nencoding: raw\ndata file: {secret}\n\n"
    for name in ("a.nrrd", "a.nhdr"):
        answer = client.post(
            "/infer/sam2_single",
            data=params(foreground=[[1, 1, 1]]),
            files={"file": (name, header.encode())},
        )
        assert answer.status_code == 422, answer.text
        assert SECRET not in answer.content


def test_what_is_kept_cannot_break_the_list(client):
    for info in ('{"a": NaN}', '{"a": 1e999}', r'{"a": "\ud800"}', "[" * 50 + "]" * 50, '{"a":' * 50 + "1" + "}" * 50):
        answer = client.put("/datastore/image/info", params={"image": "first"}, data={"info": info})
        assert answer.status_code == 422, info
    for body in ('{"client_id": NaN}', r'{"client_id": "\udfff"}', '{"client_id": ' * 99 + "1" + "}" * 99):
        answer = client.post("/activelearning/first", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422, body
    assert client.get("/datastore/?output=all").status_code == 200


@pytest.mark.parametrize("claimed", [True, False])
def test_large_bodies(client, claimed):
    """Refused by what they claim, and by what comes when they claim nothing."""

    def pieces():
        for _ in range(12):
            yield b"[" + b" " * (1 << 20)

    headers = {"Content-Type": "application/json"}
    content = b" " * (9 << 20) if claimed else pieces()
    answer = client.post("/activelearning/first", content=content, headers=headers)
    assert answer.status_code == 413 and "larger than 1 MiB" in answer.json()["detail"]


def test_a_volume_that_claims_too_much(client):
    header = b"NRRD0005\ntype: uint8\ndimension: 3\nsizes: 9999 9999 9999\nencoding: raw\n\n"
    answer = client.post("/infer/sam2_single", data=params(foreground=[[1, 1, 1]]), files={"file": ("a.nrrd", header)})
    assert answer.status_code == 413 and "at most" in answer.json()["detail"]


def test_nothing_is_left_behind(client, place, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    client.put("/session/", params={"uncompress": True}, files={"files": ("a.zip", b"no archive")})
    client.post("/infer/sam2", data={"params": "{}"}, files={"file": ("a.nii.gz", b"x")})
    client.put("/datastore/label", params={"image": "nothing"}, files={"label": ("a.nii.gz", b"x")})
    client.get("/datastore/dataset")
    assert list(tmp_path.iterdir()) == []
