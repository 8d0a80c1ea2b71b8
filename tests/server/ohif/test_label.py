"""What there is of a case, as the viewer gets it."""

import json

import numpy as np
from labelserver import label_bytes

from slicecast.server.dependencies import labelling_app
from slicecast.volume import read_volume


def test_a_label_in_the_viewers_order_with_its_names(client):
    store = labelling_app().dicom_studies()
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
    assert '<script defer src="/ohif/slicecast.js"></script>' in client.get("/ohif/monai-label").text
    script = client.get("/ohif/slicecast.js")
    assert script.headers["content-type"].startswith("text/javascript") and "PANEL" in script.text
