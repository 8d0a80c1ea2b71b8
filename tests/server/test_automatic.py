"""What Slicer asks for after Next Sample."""


def test_slicer_gets_no_error_where_there_is_no_automatic_model(client):
    answer = client.post("/infer/?image=first", files={"params": (None, '{"result_extension": ".nrrd"}')})
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
    assert answer.json()["label_names"] == {"spleen": 1, "liver": 2, "kidney": 3}
    assert "no automatic model" in answer.json()["warnings"][0]


def test_an_unknown_image_is_still_refused(client):
    answer = client.post("/infer/?image=third")
    assert answer.status_code == 404 and "no image 'third'" in answer.json()["detail"]
