"""Saving a label over HTTP."""

import pytest


def save(client, image="first", content=b"one", *, who="ann", params="{}", **query):
    files = {"label": ("label.nii.gz", content)}
    return client.put(
        "/datastore/label",
        params={"image": image, **query},
        data={"params": params},
        files=files,
        headers={"X-Slicecast-User": who},
    )


def test_a_saved_label_is_submitted(client):
    assert save(client).json() == {"image": "first", "label": "first"}
    assert client.get("/campaign/status").json()["people"][0]["who"] == "ann"
    client.delete("/datastore/label", params={"id": "first", "tag": "final"})


def test_another_persons_case_is_a_conflict(client):
    held = client.post("/activelearning/first", json={"client_id": "ann"}).json()["id"]
    refused = save(client, held, who="bob")
    assert refused.status_code == 409 and "with ann for another 30 min" in refused.json()["detail"]
    assert save(client, held, who="ann").status_code == 200


@pytest.mark.parametrize(
    ("query", "params", "status"),
    [
        ({"image": "nothing"}, "{}", 404),
        ({"tag": "../up"}, "{}", 422),
        ({}, "[1]", 422),
        ({"image": "../x"}, "{}", 404),
    ],
)
def test_bad_requests(client, query, params, status):
    assert save(client, **{"image": "second", **query}, who="cid", params=params).status_code == status
