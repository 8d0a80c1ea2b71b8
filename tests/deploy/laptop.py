"""What `test_compose.py` does from the annotator's machine; prints what it found as JSON."""

import json
import ssl
import sys
import time
from pathlib import Path

import httpx
from machines import STRUCTURE, click, save, wait_for

from slicecast.volume import read_volume

name, token, folder, authority = sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
archive = httpx.Client(base_url="http://orthanc:8042", auth=("slicecast", "archive-1"), timeout=60.0)
wait_for(archive, "/system")
for file in sorted((folder / "dicom").rglob("*.dcm")):
    archive.post("/instances", content=file.read_bytes()).raise_for_status()
while not authority.exists():
    time.sleep(0.5)
trust = ssl.create_default_context(cadata=authority.read_text())
with httpx.Client(base_url=f"https://{name}", verify=trust, timeout=120.0) as browser:
    wait_for(browser)
    metrics = browser.get("/metrics").status_code
    answer = browser.post("/login", data={"username": "anna", "password": token})
    assert answer.status_code == 303 and "secure" in answer.headers["set-cookie"].lower(), answer.text
    image = browser.post("/activelearning/first", json={}).json()["id"]
    mask = click(browser, image)
    save(browser, image, mask)
(folder / "mask.nii.gz").write_bytes(mask)
i, j, k = STRUCTURE["ijk"]
series: list[str] = []
while "SEG" not in series:  # the label is sent to the archive after the answer
    time.sleep(1.0)
    uids = archive.get("/series").json()
    series = [archive.get(f"/series/{uid}").json()["MainDicomTags"]["Modality"] for uid in uids]
up: list[str] = []
while up != ["1"]:
    found = httpx.get("http://prometheus:9090/api/v1/query", params={"query": 'up{job="slicecast"}'}).json()
    up = [one["value"][1] for one in found["data"]["result"]]
    time.sleep(1.0)
value = int(read_volume(folder / "mask.nii.gz").array[k, j, i])
print(json.dumps({"mask": value, "metrics": metrics, "up": up, "series": sorted(series)}))
