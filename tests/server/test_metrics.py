import json

from prometheus_client.parser import text_string_to_metric_families


def metrics(client):
    answer = client.get("/metrics")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_what_the_server_did_can_be_seen(client):
    before = metrics(client)
    click = {"params": json.dumps({"foreground": [[12, 10, 8]], "client_id": "a name"})}
    assert client.post("/infer/sam2_single", params={"image": "first"}, data=click).status_code == 200
    assert client.get("/datastore/image?image=nobody-knows").status_code == 404
    assert client.get("/nothing/4711").status_code == 404
    after = metrics(client)

    def grown(name, **labels):
        key = (name, *sorted(labels.items()))
        return after[key] - before.get(key, 0)

    assert grown("slicecast_requests_total", method="POST", route="/infer/{model}", status="200") == 1
    assert grown("slicecast_requests_total", method="GET", route="/datastore/image", status="404") == 1
    assert grown("slicecast_requests_total", method="GET", route="other", status="404") == 1
    assert grown("slicecast_request_seconds_count", route="/infer/{model}") == 1
    assert grown("slicecast_jobs_total", urgency="click") == 1
    assert grown("slicecast_steps_total", urgency="propagation") > 0
    assert all(grown("slicecast_slices_total", how=how) > 0 for how in ("encoded", "prompted", "tracked"))
    assert grown("slicecast_cache_slices_total", found="miss") > 0
    assert after[("slicecast_cache_bytes",)] > 0 and after[("slicecast_jobs_working",)] == 0
    assert after[("process_resident_memory_bytes",)] > 0
    assert not any("nobody-knows" in str(key) or "4711" in str(key) or "a name" in str(key) for key in after)


def test_methods_that_a_client_makes_up_do_not_become_series(client):
    for number in range(3):
        assert client.request(f"MADEUP{number}", "/healthz").status_code == 405
    told = client.get("/metrics").text
    assert "MADEUP" not in told
    assert sum('method="other"' in line for line in told.splitlines() if "_total" in line) == 1
