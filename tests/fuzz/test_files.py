"""Files with damaged headers: read, or refused with a sentence; the server that gets them goes on as before."""

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from damage import SERIES, damaged, small_files
from hypothesis import strategies as st

from slicecast.errors import SlicecastError
from slicecast.volume import read_volume

MOST = 1 << 20
CLICK = {"foreground": [[5, 5, 1]], "result_extension": ".nrrd"}


def reader(folder: Path):
    """Return what reads a damaged file: as a volume of plausible size, or as one of our own errors."""
    series = folder / "series"
    series.mkdir()
    for file in SERIES[1:4]:
        shutil.copy(file, series)

    def read(file: tuple[str, bytes]) -> None:
        ending, content = file
        path = folder / f"case{ending}"
        path.write_bytes(content)
        places = [path]
        if ending == ".dcm":
            (series / "case.dcm").write_bytes(content)
            places.append(series)
        for place in places:
            try:
                volume = read_volume(place, max_voxels=MOST)
            except SlicecastError:
                continue
            assert np.isfinite(volume.array).all() and volume.array.size <= MOST

    return read


@pytest.mark.filterwarnings("ignore")
def test_damaged_volumes(tmp_path, trying):
    trying(reader(tmp_path), examples=300, file=damaged(small_files(tmp_path)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_many_damaged_volumes(tmp_path, trying, seconds, report):
    start, files = time.monotonic(), damaged(small_files(tmp_path))
    report("damaged files, read", trying(reader(tmp_path), examples=500, seconds=seconds(0.15), file=files), start)


def sender(server):
    """Return what sends a damaged file with a request, and what puts it among the studies."""

    def ask(method: str, address: str, **content) -> None:
        server.require_no_accident(server.client.request(method, address, **content))

    def send(file: tuple[str, bytes], stays: bool) -> None:
        ending, content = file
        sent, params = ("case" + ending, content), {"params": json.dumps(CLICK)}
        if not stays:
            ask("POST", "/infer/sam2_single", data=params, files={"file": sent})
        elif ending == ".dcm":
            lies_in_the_studies(content)
        else:
            ask("PUT", "/datastore/image", params={"image": "case"}, files={"file": sent})
            ask("POST", "/infer/sam2_single", params={"image": "case"}, data=params)
            look_at("case")
            ask("DELETE", "/datastore/image", params={"id": "case"})
        server.require_well()

    def lies_in_the_studies(content: bytes) -> None:
        folder = server.studies / "odd"
        folder.mkdir()
        shutil.copy(SERIES[1], folder)
        (folder / "case.dcm").write_bytes(content)
        try:
            look_at(None)
        finally:
            shutil.rmtree(folder)

    def look_at(patient: str | None) -> None:
        ask("GET", "/datastore/", params={"output": "all"})
        ask("POST", "/activelearning/random", json={})
        ask("GET", "/dicom-web/studies")
        found = server.client.get("/dicom-web/series", params={"PatientID": patient} if patient else {})
        server.require_no_accident(found)
        for row in found.json()[:4]:
            study, series = row["0020000D"]["Value"][0], row["0020000E"]["Value"][0]
            place = f"/dicom-web/studies/{study}/series/{series}"
            ask("GET", f"{place}/metadata")
            for instance in server.client.get(f"{place}/instances").json()[:2]:
                uid = instance["00080018"]["Value"][0]
                ask("GET", f"{place}/instances/{uid}/frames/1")
                ask("GET", f"{place}/instances/{uid}/rendered")
            ask("POST", "/infer/sam2_single", params={"image": series}, data={"params": json.dumps(CLICK)})

    return send


@pytest.mark.filterwarnings("ignore")
def test_damaged_uploads(server, tmp_path, trying):
    trying(sender(server), examples=20, file=damaged(small_files(tmp_path)), stays=st.booleans())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_many_damaged_uploads(server, tmp_path, trying, seconds, report):
    start, files = time.monotonic(), damaged(small_files(tmp_path))
    count = trying(sender(server), examples=50, seconds=seconds(0.25), file=files, stays=st.booleans())
    report("damaged files, sent to the server", count, start)
