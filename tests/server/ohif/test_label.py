"""What there is of a case, as the viewer gets it."""

import json

import numpy as np
from labelserver import label_bytes

from slicecast.server.dependencies import labelling_app
from slicecast.volume import read_volume


def test_a_label_in_the_viewers_order_with_its_names(client):
    store = labelling_app().datastore()
    series = store.dicom_names("first")["SeriesInstanceUID"]
    assert client.get(f"/ohif/label/{series}").status_code == 204
    params = json.dumps({"label_info": [{"name": "größe", "idx": 1}]})
    saved = {"data": {"params": params}, "files": {"label": ("label.nii.gz", label_bytes())}}
    assert client.put("/datastore/label", params={"image": "first"}, **saved).status_code == 200
    answer = client.get(f"/ohif/label/{series}")
    shown = read_volume(store.scan_path(series)).array
    voxels = np.frombuffer(answer.content, np.uint8).reshape(shown.shape)
    assert json.loads(answer.headers["X-Slicecast-Labels"]) == {"größe": 1}
    assert np.array_equal(voxels == 1, shown > 70) and voxels.any()
    assert client.get("/ohif/label/1.2.3").status_code == 204


def test_the_start_page_loads_the_script(client):
    assert '<script type="module" src="/ohif/slicecast.js"></script>' in client.get("/ohif/monai-label").text
    script = client.get("/ohif/slicecast.js")
    assert script.headers["content-type"].startswith("text/javascript") and "PANEL" in script.text


def test_the_bar_tells_of_a_case_and_takes_changes_back(client):
    store = labelling_app().datastore()
    series = store.dicom_names("second")["SeriesInstanceUID"]
    nothing = client.get(f"/ohif/case/{series}").json()
    assert (nothing["name"], nothing["objects"], nothing["submit"]) == ("second", {}, False)
    ours = {"X-Requested-With": "slicecast"}
    assert client.post("/campaign/case/second/back", headers=ours).status_code == 404
    shown = []
    for voxels in ([[12, 12, 5]], [[12, 12, 5], [13, 12, 5]]):
        params = json.dumps({"kidney": voxels})
        assert client.post("/infer/sam2?image=second&output=json", data={"params": params}).status_code == 200
        known = client.get(f"/ohif/case/{series}").json()
        assert set(known["objects"]) == {"kidney"} and known["submit"]
        shown.append(known["shown"])
    assert client.post("/campaign/case/second/back", headers=ours).status_code == 200
    assert client.get(f"/ohif/case/{series}").json()["shown"] == shown[0] < shown[1]
    assert client.post("/campaign/case/second/back", headers=ours).status_code == 200
    assert client.get(f"/ohif/case/{series}").json()["objects"] == {}
    opened = client.get("/ohif/open/second", follow_redirects=False)
    assert opened.status_code == 303 and "StudyInstanceUIDs=" in opened.headers["location"]
