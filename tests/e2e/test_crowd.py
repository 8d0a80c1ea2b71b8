"""A crowded server, started as a user does: fairness, cancelling, a full queue, being killed, and many sessions."""

import json
import os
import random
import shutil
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import httpx
import psutil
import pytest
import yaml
from labelserver import copy_app
from prometheus_client.parser import text_string_to_metric_families

from slicecast.config import project_dir
from slicecast.demo.server_process import serving
from slicecast_lab.benchmarks.server import ANSWER_LIMIT_S as WAIT_S
from slicecast_lab.benchmarks.server import SessionClient, centre, wait_for_workers, write_pipes

SLICES = 120
SOAK_S = float(os.environ.get("SOAK_S", "60"))
"""How long the soak test runs; ten minutes before a release."""
KILL_S = 15.0
"""How often it kills a worker."""


def wait_until(condition):
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def start(folder: Path, *, pipes: int, slices: int = SLICES, workers: int = 1, **queue):
    """Start a server on new volumes, with other limits of the queue, and worker processes."""
    write_pipes(folder / "studies", pipes, slices=slices)
    copy_app(folder / "app")
    configs = Path(shutil.copytree(project_dir("configs"), folder / "configs"))
    limits = yaml.safe_load((configs / "server.yaml").read_text())
    limits["queue"] |= queue
    (configs / "server.yaml").write_text(yaml.safe_dump(limits))
    engine = (configs / "engine.yaml").read_text()
    (configs / "engine.yaml").write_text(engine.replace("workers: 1", f"workers: {workers}"))
    return again(folder)


@contextmanager
def again(folder: Path):
    """Start a server on what is there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLICECAST_CONFIGS", str(folder / "configs"))
        with serving(folder / "studies", app=folder / "app", log=folder / f"log-{time.time():.0f}") as server:
            wait_for_workers(server.url)
            yield server


def workers_of(server):
    """Return the worker processes of a server."""
    children = psutil.Process(server.pid).children()
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A server that works on one request at a time and lets one more wait."""
    with start(tmp_path_factory.mktemp("small"), pipes=2, jobs=1, waiting=1) as server:
        yield server


def metrics(url):
    """Read /metrics as {name: value} and {(name, label): value}."""
    values = {}
    for family in text_string_to_metric_families(httpx.get(f"{url}/metrics", timeout=WAIT_S).text):
        for sample in family.samples:
            label = sample.labels.get("how") or sample.labels.get("urgency")
            values[(sample.name, label) if label else sample.name] = sample.value
    return values


def working(url):
    return metrics(url)["slicecast_jobs_working"]


def tracked(url):
    return metrics(url)[("slicecast_slices_total", "tracked")]


def infer(url, image, ijk, *, client_id, timeout=WAIT_S):
    params = json.dumps({"foreground": [ijk], "client_id": client_id, "result_extension": ".nrrd"})
    query = {"image": image, "output": "image"}
    return httpx.post(f"{url}/infer/sam2_single", params=query, data={"params": params}, timeout=timeout)


def leave_after_steps(url, path, **form):
    """Begin a request, and break its connection once some slices are walked; return how many were in the end."""
    before, body = tracked(url), urlencode(form).encode()
    host = url.removeprefix("http://")
    head = [f"POST {path} HTTP/1.1", f"Host: {host}", "Content-Type: application/x-www-form-urlencoded"]
    with socket.create_connection(host.split(":")) as connection:
        connection.sendall("\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body)
        wait_until(lambda: tracked(url) > before + 4)
    wait_until(lambda: working(url) == 0)
    return tracked(url) - before


def test_whoever_leaves_stops_their_infer(small):
    params = json.dumps({"foreground": [centre(0, SLICES // 2)]})
    assert leave_after_steps(small.url, "/infer/sam2_single?image=pipe0", params=params) < SLICES - 20


def test_whoever_leaves_stops_their_propagation_and_it_goes_on_later(small):
    session = SessionClient(small.url, "pipe1", name="anna")
    session.click(centre(1, SLICES // 2))
    assert leave_after_steps(small.url, f"{session.address}/propagate") < SLICES - 20
    rest = session.propagate()
    assert rest["reused"] > 0 and rest["recomputed"] < SLICES - 2
    session.close()


def test_cancel_keeps_what_is_done(small):
    session = SessionClient(small.url, "pipe0", name="anna")
    session.click(centre(0, SLICES // 3))
    lines = session.lines()
    first = [next(lines) for _ in range(8)]
    assert httpx.post(f"{small.url}{session.address}/cancel").json() == {"cancelled": True}
    *rest, line = lines
    seen = sum(entry["type"] == "slice" for entry in first + rest)
    assert line["cancelled"] and line["objects"]["pipe"]["voxels"] > 0 and seen < SLICES - 20
    session.close()


def test_a_full_queue_and_a_click_that_goes_first(small):
    """One works, one waits, the third is refused at once; nobody else notices."""
    with ThreadPoolExecutor(2) as pool:
        going = [pool.submit(infer, small.url, "pipe1", centre(1, 30 + n), client_id=f"user {n}") for n in range(2)]
        wait_until(lambda: sum(v for k, v in metrics(small.url).items() if k[0] == "slicecast_jobs_waiting") == 1)
        refused = infer(small.url, "pipe1", centre(1, 50), client_id="late")
        assert refused.status_code == 503 and refused.headers["retry-after"] == "5", refused.text
        assert "1 requests are waiting" in refused.json()["detail"]
        assert httpx.get(f"{small.url}/info/", timeout=WAIT_S).status_code == 200
        assert [answer.result(WAIT_S).status_code for answer in going] == [200, 200]


def work_of(url, name, number):
    """One annotator: clicks on the volume number % 4, corrects, and takes something back; every result on the way."""
    seed = number % 4
    session = SessionClient(url, f"pipe{seed}", name=name)
    results = []
    for k in (10 + 4 * number, 50 - 3 * number):
        session.click(centre(seed, k))
        session.propagate()
        results.append(session.result())
    session.http.post(f"{session.address}/undo")
    results.append(session.result())
    session.close()
    return results


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_eight_annotators_on_four_volumes_are_not_mixed(tmp_path, workers):
    """All at once on one server, one after the other on another; every mask is the same."""
    with start(tmp_path / "crowd", pipes=4, slices=60, workers=workers) as server, ThreadPoolExecutor(8) as pool:
        crowd = list(pool.map(lambda n: work_of(server.url, f"user {n}", n), range(8)))
    with start(tmp_path / "serial", pipes=4, slices=60) as server:
        serial = [work_of(server.url, f"user {n}", n) for n in range(8)]
    assert crowd == serial
    # Of each volume at least one; the second click and its undo may change nothing of a pipe that was found whole.
    assert len({result for results in serial for result in results}) >= 4


@pytest.mark.slow
def test_a_killed_server_loses_no_prompt(tmp_path):
    """Killed in the middle of a propagation, it comes back with the session, whose result is that of a quiet server."""
    clicks = [centre(0, 40), centre(0, 80)]
    with start(tmp_path / "killed", pipes=1) as server:
        session = SessionClient(server.url, "pipe0", name="anna")
        for ijk in clicks:
            said = session.click(ijk)
        with pytest.raises(httpx.HTTPError):
            for seen, _ in enumerate(session.lines()):
                if seen == 8:
                    os.kill(server.pid, signal.SIGKILL)
        session.http.close()
    with again(tmp_path / "killed") as server:
        session = SessionClient(server.url, "pipe0", name="anna", session=session.address)
        now = session.state()
        assert (now["prompts"], now["revision"]) == (said["prompts"], said["revision"])
        resumed = session.result()
        session.close()
    with start(tmp_path / "quiet", pipes=1) as server:
        quiet = SessionClient(server.url, "pipe0", name="anna")
        for ijk in clicks:
            quiet.click(ijk)
        assert quiet.result() == resumed
        quiet.close()


@pytest.mark.slow
def test_killed_workers_lose_nothing_and_end_with_their_server(tmp_path):
    """All killed in the middle of a session's propagation, and of a request: the answers are those of one process."""
    with start(tmp_path / "workers", pipes=2, workers=2) as server, ThreadPoolExecutor(1) as pool:
        session = SessionClient(server.url, "pipe0", name="anna")
        session.click(centre(0, 40))
        types = []
        for line in session.lines():
            types.append(line["type"])
            if len(types) == 8:
                kill_all(workers_of(server))
        assert types[-1] == "summary" and types.count("slice") > 8
        found = [session.result()]
        session.close()
        wait_for_workers(server.url)
        answer = pool.submit(infer, server.url, "pipe1", centre(1, 60), client_id="bob")
        wait_until(lambda: working(server.url))
        kill_all(workers_of(server))
        found.append(answer.result(WAIT_S).content)
        wait_for_workers(server.url)
        left = workers_of(server)
        os.kill(server.pid, signal.SIGKILL)
        psutil.wait_procs(left, timeout=WAIT_S)
        assert not any(worker.is_running() for worker in left)
    with start(tmp_path / "one", pipes=2) as server:
        session = SessionClient(server.url, "pipe0", name="anna")
        session.click(centre(0, 40))
        session.propagate()
        assert found == [session.result(), infer(server.url, "pipe1", centre(1, 60), client_id="bob").content]
        session.close()


def kill_all(workers):
    assert len(workers) == 2
    for worker in workers:
        worker.kill()


def annotate_for_a_while(url, number, until, doing):
    """Do what annotators do, in random order; return the number of requests, and what went wrong."""
    rng, done, wrong = random.Random(number), 0, []
    seed = number % 3
    while time.monotonic() < until:
        session = SessionClient(url, f"pipe{seed}", name=f"user {number}")
        for _ in range(rng.randint(2, 6)):
            act = rng.choice(["click", "click", "beside", "undo", "redo", "leave", "result", "infer", "next", "info"])
            doing[number] = f"{act} since {time.monotonic() - until:.0f} s, in {session.address}"
            answer = do(act, session, url, seed, rng)
            done += 1
            if answer is not None and answer.status_code >= 500 and answer.status_code != 503:
                wrong.append(f"{act}: {answer.status_code} {answer.text[:200]}")
        doing[number] = f"propagate since {time.monotonic() - until:.0f} s, in {session.address}"
        last = session.http.post(f"{session.address}/propagate")  # 422 where all that was said is taken back
        wrong += [] if last.status_code in (200, 422) else [f"propagate: {last.status_code} {last.text[:200]}"]
        session.close()
    doing.pop(number, None)
    return done, wrong


def can_start(session):
    return any(prompt["positive"] for prompt in session.state()["prompts"])


def do(act, session, url, seed, rng):
    k = rng.randrange(40)
    match act:
        case "click":
            session.click(centre(seed, k))
            return session.http.post(f"{session.address}/propagate")
        case "beside":
            session.click([1, 1, k], positive=False)
        case "leave":
            for line in session.lines() if can_start(session) else ():
                if line["type"] == "slice" and rng.random() < 0.3:
                    break
            wait_until(lambda: not session.state()["propagating"])
        case "result":
            return session.http.get(f"{session.address}/result")
        case "infer":
            return infer(url, f"pipe{seed}", centre(seed, k), client_id=f"user {seed}")
        case "next":
            return httpx.post(f"{url}/activelearning/random", json={}, timeout=WAIT_S)
        case "info":
            return httpx.get(f"{url}/info/", timeout=WAIT_S)
        case _:
            return session.http.post(f"{session.address}/{act}")
    return None


def kill_now_and_then(server, until, rng):
    """Kill a worker every `KILL_S`; return how often."""
    kills = 0
    while time.monotonic() < until - KILL_S:
        time.sleep(KILL_S)
        if workers := workers_of(server):
            rng.choice(workers).kill()
            kills += 1
    return kills


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_soak(tmp_path, workers):
    """A team works for a while; nothing breaks, even where workers die, and in the end nothing is left in work."""
    with start(tmp_path, pipes=3, slices=40, workers=workers) as server, ThreadPoolExecutor(7) as pool:
        until, doing = time.monotonic() + SOAK_S, {}
        killer = pool.submit(kill_now_and_then, server, until, random.Random(0)) if workers > 1 else None
        teams = [pool.submit(annotate_for_a_while, server.url, n, until, doing) for n in range(6)]
        _, late = wait(teams, timeout=SOAK_S + 4 * WAIT_S)
        assert not late, f"still at work: {doing}; queue: {metrics(server.url)}"
        outcomes = [team.result() for team in teams]
        wait_until(lambda: working(server.url) == 0)
        seen = metrics(server.url)
        assert sum(v for k, v in seen.items() if k[0] in ("slicecast_jobs_waiting", "slicecast_steps_waiting")) == 0
        assert httpx.get(f"{server.url}/slicecast/sessions").json() == {"sessions": []}
    assert [wrong for _, wrong in outcomes if wrong] == []
    assert all(done > 0 for done, _ in outcomes)
    if killer is not None:
        print(f"{killer.result()} workers killed, ", end="")
    print(f"{sum(done for done, _ in outcomes)} requests in {SOAK_S:g} s, none failed")
