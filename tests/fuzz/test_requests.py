"""Requests that nobody would think of: after each the server lives, and a golden click gives the same mask.

`make test` sends a small, fixed share of them; `make fuzz` sends others each time, for minutes.
"""

import json
import time
import warnings
from typing import Any

import pytest
import requests
from hypothesis import strategies as st
from labelserver import TestClient, write_studies

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import schemathesis

NOT_CALLED = ("/train/", "/batch/infer", "/login", "/metrics")
"""Start processes of their own, or are tried elsewhere."""

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
INDEX = st.integers(-3, 30) | st.integers() | st.floats() | st.none() | st.text(max_size=3)
INSIDE = st.tuples(st.integers(0, 23), st.integers(0, 19), st.integers(0, 15)).map(list)
POINTS = st.lists(INSIDE, max_size=4) | st.lists(st.lists(INDEX, min_size=0, max_size=4), max_size=4) | JSON
KEYS = ("foreground", "background", "spleen", "roi", "slice", "axis", "range", "window", "label", "result_extension",
        "result_dtype", "result_compress", "restore_label_idx", "save_label", "label_tag", "client_id", "label_info",
        "device", "logging", "reset_state", "strategy", "image", "model", "labels", "points", "bbox")  # fmt: skip
PARAMS = st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), POINTS, max_size=5)
WAYS = {"model": st.sampled_from(["sam2", "sam2_single", "sam2_slice"]), "params": PARAMS,
        "output": st.sampled_from(["image", "json", "all", "dicom_seg"])}  # fmt: skip


def infer(server, *, every: bool):
    """Return what sends one request for a mask."""

    def send(model: str, params: dict[str, Any], output: str) -> None:
        query = {"image": "second", "output": output}
        answer = server.client.post(f"/infer/{model}", params=query, data={"params": json.dumps(params)})
        server.require_no_accident(answer)
        if every:
            server.require_well()

    return send


def test_params(server, trying):
    trying(infer(server, every=False), examples=40, **WAYS)
    server.require_well()


@pytest.mark.slow
def test_many_params(server, trying, seconds, report):
    start = time.monotonic()
    report("params of /infer", trying(infer(server, every=True), examples=50, seconds=seconds(0.2), **WAYS), start)


@pytest.fixture(scope="module")
def operations(server) -> list[Any]:
    """Every operation of the OpenAPI description."""
    schema = schemathesis.openapi.from_dict(server.client.get("/openapi.json").json())
    found = [result.ok() for result in schema.get_all_operations()]
    return [entry for entry in found if not entry.path.startswith(NOT_CALLED)]


def known_names(server) -> dict[str, Any]:
    """Return names that exist, by the name of the parameter; a description alone hardly ever hits one."""
    write_studies(server.studies, ("first", "second"))  # an earlier request may have removed it
    session = server.client.post("/slicecast/sessions", json={"image": "second"})
    row = server.client.get("/dicom-web/series", params={"PatientID": "second"}).json()[0]
    study, series = row["0020000D"]["Value"][0], row["0020000E"]["Value"][0]
    known = dict.fromkeys(("image", "id", "label", "name"), "second")
    known |= {"model": "sam2_single", "strategy": "first", "tag": "final", "session_id": session.json()["id"]}
    known |= {"study": study, "series": series, "instance": f"{series}.1", "numbers": "1", "prompt_id": "1"}
    return {**known, "action": "take", "path": "qido/studies"}


def send(client: TestClient, case: Any) -> Any:
    """Send what schemathesis has made up, byte for byte, over this client."""
    ready = requests.Request(**case.as_transport_kwargs(base_url=str(client.base_url))).prepare()
    headers = {name: value for name, value in ready.headers.items() if name.lower() != "content-length"}
    return client.request(ready.method, ready.url, content=ready.body, headers=headers)


def caller(server, names: dict[str, Any], *, every: bool):
    """Return what calls one operation."""

    def call(case: Any, real: frozenset[str]) -> None:
        for given in (case.path_parameters, case.query):
            for name in (given or {}).keys() & real:
                given[name] = names[name]
        server.require_no_accident(send(server.client, case))
        if every:
            server.require_well()

    return call


def call_all(server, operations, trying, *, examples: int, seconds: float | None = None) -> int:
    """Call every operation with what its description allows, some with names that exist."""
    names, count = known_names(server), 0
    real = st.frozensets(st.sampled_from(sorted(names))) | st.just(frozenset(names))
    for operation in operations:
        call = caller(server, names, every=seconds is not None)
        share = None if seconds is None else seconds / len(operations)
        count += trying(call, examples=examples, seconds=share, case=operation.as_strategy(), real=real)
        assert server.client.get("/healthz").status_code == 200
    return count


@pytest.mark.filterwarnings("ignore")
def test_what_openapi_allows(server, operations, trying):
    call_all(server, operations, trying, examples=2)
    server.require_well()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_much_of_what_openapi_allows(server, operations, trying, seconds, report):
    start = time.monotonic()
    report("every operation of OpenAPI", call_all(server, operations, trying, examples=5, seconds=seconds(0.4)), start)
