"""Batch inference as MONAI Label's clients ask for it."""

import pytest


def test_nothing_has_run(client):
    assert client.get("/batch/infer/").status_code == 404
    assert client.get("/batch/infer?check_if_running=true").status_code == 404
    stopped = client.delete("/batch/infer/")
    assert stopped.status_code == 200 and stopped.json() is None


@pytest.mark.parametrize(
    ("model", "query", "params", "status"),
    [
        ("nothing", "", {}, 422),
        ("sam2", "", {}, 422),
        ("automatic", "?images=some", {}, 422),
        ("automatic", "", {"label_tag": "final"}, 422),
        ("automatic", "", {"images": "/etc/passwd"}, 422),
        ("automatic", "", {"max_batch_size": -1}, 422),
        ("automatic", "", {}, 404),  # no network yet
    ],
)
def test_what_cannot_be_asked_for(client, model, query, params, status):
    answer = client.post(f"/batch/infer/{model}{query}", json=params)
    assert answer.status_code == status and answer.json()["detail"]
