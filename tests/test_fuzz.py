"""Requests and files that nobody would think of: after each the server lives, and a golden click gives the same mask.

`make test` runs a small, fixed share of them; `make fuzz` many, and other ones each time.
"""

import gzip
import io
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from builders import phantom
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from labelserver import ROOT, TestClient, copy_app, monailabel_settings, write_studies

from slicecast.errors import SlicecastError
from slicecast.server.app import create_app
from slicecast.volume import read_volume, write_volume

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import schemathesis

SAMPLE = ROOT / "sample-data" / "dicom" / "ct_abdomen_dicom"
GOLDEN = {"foreground": [[12, 10, 8]], "result_extension": ".nrrd"}

NOT_CALLED = ("/train/", "/batch/infer", "/scoring/", "/login", "/metrics")
"""Start processes of their own, or are tried elsewhere."""
EXPECTED = (501, 502, 503, 504)
"""Server errors with a sentence: the PACS is away, the queue is full."""


def few(number: int, *, slow: bool = False) -> Any:
    """Settings for so many examples; the slow ones are other ones each time."""
    return settings(
        max_examples=number,
        deadline=None,
        derandomize=not slow,
        database=None,
        phases=[Phase.generate] if not slow else [Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Studies and an app."""
    folder = tmp_path_factory.mktemp("fuzz")
    write_studies(folder / "studies")
    copy_app(folder / "app")
    return folder


@pytest.fixture(scope="module")
def client(place: Path) -> Iterator[TestClient]:
    chosen = {
        "MONAI_LABEL_APP_DIR": str(place / "app"),
        "MONAI_LABEL_STUDIES": str(place / "studies"),
        "MONAI_LABEL_APP_CONF": {"labels": "spleen,liver"},
        "MONAI_LABEL_DATASTORE_AUTO_RELOAD": False,
    }
    with monailabel_settings(**chosen), TestClient(create_app(), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def golden(client) -> bytes:
    """The mask of a click, before anything odd has happened."""
    return click(client)


def click(client: TestClient) -> bytes:
    query = {"image": "first", "output": "image"}
    answer = client.post("/infer/sam2_single", params=query, data={"params": json.dumps(GOLDEN)})
    assert answer.status_code == 200, answer.text
    return answer.content


def require_well(client: TestClient, golden: bytes) -> None:
    assert client.get("/healthz").status_code == 200
    assert client.get("/datastore/?output=all").status_code == 200
    assert click(client) == golden


def require_no_accident(answer: Any) -> None:
    assert answer.status_code < 500 or answer.status_code in EXPECTED, answer.text[:2000]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
INDEX = st.integers(-3, 30) | st.integers() | st.floats() | st.none() | st.text(max_size=3)
POINTS = st.lists(st.lists(INDEX, min_size=0, max_size=4), max_size=4) | JSON
KEYS = ("foreground", "background", "spleen", "roi", "slice", "axis", "range", "window", "label", "result_extension",
        "result_dtype", "result_compress", "restore_label_idx", "save_label", "label_tag", "client_id", "label_info",
        "device", "logging", "reset_state", "strategy", "image", "model", "labels", "points", "bbox")  # fmt: skip
PARAMS = st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), POINTS, max_size=5)


def some_params(client, model: str, params: dict[str, Any], output: str) -> None:
    text = json.dumps(params)
    query = {"image": "second", "output": output}
    require_no_accident(client.post(f"/infer/{model}", params=query, data={"params": text}))


WAYS = {"model": st.sampled_from(["sam2", "sam2_single", "sam2_slice"]), "params": PARAMS,
        "output": st.sampled_from(["image", "json", "all"])}  # fmt: skip


def send_params(client, golden, *, examples: int, slow: bool) -> None:
    def send(model: str, params: dict[str, Any], output: str) -> None:
        some_params(client, model, params, output)

    given(**WAYS)(few(examples, slow=slow)(send))()
    require_well(client, golden)


def test_params(client, golden):
    send_params(client, golden, examples=40, slow=False)


@pytest.mark.slow
def test_many_params(client, golden):
    send_params(client, golden, examples=2000, slow=True)


def operations(client: TestClient) -> list[Any]:
    """Every operation of the OpenAPI description."""
    schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
    found = [result.ok() for result in schema.get_all_operations()]
    return [entry for entry in found if not entry.path.startswith(NOT_CALLED)]


def send(client: TestClient, case: Any) -> Any:
    """Send what schemathesis has made up, byte for byte, over this client."""
    ready = requests.Request(**case.as_transport_kwargs(base_url=str(client.base_url))).prepare()
    headers = {name: value for name, value in ready.headers.items() if name.lower() != "content-length"}
    return client.request(ready.method, ready.url, content=ready.body, headers=headers)


def call_all(client: TestClient, golden: bytes, *, examples: int, slow: bool) -> None:
    """Call every operation with what its description allows, and after each look whether all is well."""
    for operation in operations(client):

        def call(case: Any) -> None:
            require_no_accident(send(client, case))

        given(case=operation.as_strategy())(few(examples, slow=slow)(call))()
        assert client.get("/healthz").status_code == 200
    require_well(client, golden)


@pytest.mark.filterwarnings("ignore")
def test_what_openapi_allows(client, golden):
    call_all(client, golden, examples=2, slow=False)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_much_of_what_openapi_allows(client, golden):
    call_all(client, golden, examples=60, slow=True)


def small_files(folder: Path) -> dict[str, bytes]:
    """One small file of every format."""
    small, files = phantom().volume, {}
    for ending in (".nii", ".nrrd", ".mha"):
        files[ending] = write_volume(folder / f"small{ending}", small, compress=False).read_bytes()
    files[".nii.gz"] = gzip.compress(files[".nii"], mtime=0)
    files[".dcm"] = next(SAMPLE.glob("*.dcm")).read_bytes()
    return files


MUTATION = st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255))
HEADER_BYTES = 1600


def mutated(content: bytes, changes: list[tuple[float, int]], cut: float) -> bytes:
    """Change some bytes of the header, and cut the end off."""
    changed = bytearray(content)
    for where, value in changes:
        changed[int(where * min(HEADER_BYTES, len(changed)))] = value
    return bytes(changed[: max(int(len(changed) * cut), 1)])


CHANGES = st.lists(MUTATION, min_size=1, max_size=5)
CUT = st.sampled_from([1.0, 1.0, 1.0, 0.5, 0.01])


def read_damaged(folder: Path, ending: str, content: bytes, changes: list[tuple[float, int]], cut: float) -> None:
    """Reading gives a volume of plausible size or one of our own errors, never anything else."""
    packed = ending == ".nii.gz"
    damaged = mutated(gzip.decompress(content) if packed else content, changes, cut)
    file = folder / f"case{ending}"
    file.write_bytes(gzip.compress(damaged) if packed else damaged)
    try:
        volume = read_volume(file, max_voxels=1 << 20)
    except SlicecastError:
        return
    assert np.isfinite(volume.array).all() and volume.array.size <= 1 << 20


def read_all_damaged(folder: Path, *, examples: int, slow: bool) -> None:
    files = small_files(folder)

    def read(ending: str, changes: list[tuple[float, int]], cut: float) -> None:
        read_damaged(folder, ending, files[ending], changes, cut)

    given(ending=st.sampled_from(sorted(files)), changes=CHANGES, cut=CUT)(few(examples, slow=slow)(read))()


def test_damaged_volumes(tmp_path):
    read_all_damaged(tmp_path, examples=300, slow=False)


@pytest.mark.slow
def test_many_damaged_volumes(tmp_path):
    read_all_damaged(tmp_path, examples=5000, slow=True)


def test_damaged_uploads(client, golden, tmp_path):
    """The same through the server, where the golden click is asked for in between."""
    for ending, content in small_files(tmp_path).items():
        for seed in range(4):
            rng = np.random.default_rng(seed)
            changes = list(zip(rng.random(3).tolist(), rng.integers(0, 256, 3).tolist(), strict=True))
            file = ("case" + ending, io.BytesIO(mutated(content, changes, 1.0)))
            answer = client.post("/infer/sam2_single", data={"params": json.dumps(GOLDEN)}, files={"file": file})
            require_no_accident(answer)
        require_well(client, golden)
