import hashlib
import http.server
import pickle
import socket
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from slicecast.errors import ConfigError, UnknownModel, WeightsCorrupt, WeightsMissing
from slicecast.models import weights
from slicecast.models.registry import ModelSpec, get_spec, load_registry

CONTENT = bytes(range(256)) * 5000
"""More than one chunk of a download."""


def make_spec(content=CONTENT, **changes):
    fields = {
        "name": "toy",
        "title": "Toy",
        "architecture": "configs/sam2.1/sam2.1_hiera_t.yaml",
        "image_size": 64,
        "file": "toy.pt",
        "licence": "Apache-2.0",
        "url": "https://example.org/toy.pt",
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    return ModelSpec(**{**fields, **changes})


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A cache folder of the test's own, and no model chosen by the environment."""
    monkeypatch.setenv("SLICECAST_HOME", str(tmp_path))
    monkeypatch.delenv("SLICECAST_MODEL", raising=False)
    return tmp_path


@pytest.fixture
def server():
    """A real HTTP server on the loopback; ``server.files`` maps paths to bodies, ``server.requests`` counts."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            running.requests += 1
            if self.path == "/moved.pt":
                self.send_response(302)
                self.send_header("Location", "/toy.pt")
                self.end_headers()
                return
            body = running.files.get(self.path)
            if body is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body) + running.withheld))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.files, running.requests, running.withheld = {"/toy.pt": CONTENT}, 0, 0
    running.url = f"http://127.0.0.1:{running.server_port}"
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


def put(spec, content):
    path = weights.weights_path(spec)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def leftovers(home):
    return [path.name for path in home.rglob("*") if path.is_file()]


def test_downloaded_weights_live_in_the_cache_folder(home):
    assert weights.weights_path(make_spec()) == home / "models" / "toy.pt"


def test_bundled_weights_live_in_the_package():
    path = weights.weights_path(make_spec(bundled=True, url=None))
    assert path == Path(weights.__file__).parent / "bundled" / "toy.pt"


def test_pull_puts_the_right_file_in_place_and_reports_progress(server, home):
    spec, seen = make_spec(url=f"{server.url}/toy.pt"), []
    path = weights.pull(spec, lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT)) and seen == sorted(seen) and len(seen) > 1
    assert leftovers(home) == ["toy.pt"]


def test_pull_follows_redirects(server):
    assert weights.pull(make_spec(url=f"{server.url}/moved.pt")).read_bytes() == CONTENT


def test_pull_downloads_once(server):
    spec = make_spec(url=f"{server.url}/toy.pt")
    assert weights.pull(spec) == weights.pull(spec)
    assert server.requests == 1


def test_pull_replaces_a_damaged_file(server):
    spec = make_spec(url=f"{server.url}/toy.pt")
    put(spec, CONTENT[::-1])
    assert weights.pull(spec).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": "f" * 64}, f"SHA-256 {hashlib.sha256(CONTENT).hexdigest()} instead of {'f' * 64}"),
        ({"bytes": 7}, f"{len(CONTENT)} bytes instead of 7"),
    ],
)
def test_pull_refuses_another_file_and_keeps_nothing(server, home, changes, message):
    with pytest.raises(WeightsCorrupt, match=message):
        weights.pull(make_spec(url=f"{server.url}/toy.pt", **changes))
    assert leftovers(home) == []


def test_pull_of_a_truncated_download_keeps_the_old_file(server, home):
    spec = make_spec(url=f"{server.url}/toy.pt")
    old = put(spec, b"old")
    server.withheld = 1000
    with pytest.raises(WeightsMissing, match="Could not download 'toy'"):
        weights.pull(spec)
    assert old.read_bytes() == b"old" and leftovers(home) == ["toy.pt"]


def test_pull_says_what_the_server_answered(server):
    with pytest.raises(WeightsMissing, match="the server answered 404 Not Found"):
        weights.pull(make_spec(url=f"{server.url}/gone.pt"))


def test_pull_without_network_says_where_to_put_the_file_by_hand(home):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/toy.pt"
        with pytest.raises(WeightsMissing) as caught:
            weights.pull(make_spec(url=url))
    sentence = str(caught.value)
    assert url in sentence and str(home / "models" / "toy.pt") in sentence and "models verify toy" in sentence
    assert leftovers(home) == []


def test_pull_into_a_folder_that_cannot_be_made_is_one_sentence(home, server):
    (home / "models").write_text("a file where the folder should be")
    with pytest.raises(WeightsMissing, match="Could not download 'toy'"):
        weights.pull(make_spec(url=f"{server.url}/toy.pt"))


def test_an_interrupted_pull_leaves_nothing(server, home):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        weights.pull(make_spec(url=f"{server.url}/toy.pt"), stop)
    assert leftovers(home) == []


def test_pull_of_an_unsupported_model_names_the_runnable_ones():
    with pytest.raises(ConfigError, match=r"'edgetam' cannot be run: .*Models that can: medsam2"):
        weights.pull(get_spec("edgetam"))


def test_verify_returns_the_path_of_the_right_file():
    spec = make_spec()
    path = put(spec, CONTENT)
    assert weights.verify(spec) == path


def test_verify_of_a_missing_file_says_how_to_get_it():
    with pytest.raises(WeightsMissing, match="Run 'slicecast models pull toy'"):
        weights.verify(make_spec())


def test_verify_of_a_missing_bundled_file_says_to_install_again():
    with pytest.raises(WeightsMissing, match="install Slicecast again"):
        weights.verify(make_spec(bundled=True, url=None))


def test_verify_refuses_one_changed_byte():
    spec = make_spec()
    put(spec, b"\x01" + CONTENT[1:])
    with pytest.raises(WeightsCorrupt, match="SHA-256"):
        weights.verify(spec)


def test_a_file_of_the_wrong_size_does_not_count_as_present():
    spec = make_spec()
    assert not weights.is_present(spec)
    put(spec, CONTENT[:-1])
    assert not weights.is_present(spec)
    put(spec, CONTENT)
    assert weights.is_present(spec)


def spec_of_file(tmp_path, name):
    """A spec that describes the file of that name in ``tmp_path``, and the file put in place."""
    content = (tmp_path / name).read_bytes()
    spec = make_spec(content, file=name)
    put(spec, content)
    return spec


@pytest.mark.parametrize("wrapped", [True, False], ids=["under 'model'", "bare"])
def test_torch_files_load(tmp_path, wrapped):
    tensors = {"a.weight": torch.arange(6.0).reshape(2, 3)}
    torch.save({"model": tensors} if wrapped else tensors, tmp_path / "toy.pt")
    loaded = weights.load_state_dict(spec_of_file(tmp_path, "toy.pt"))
    assert list(loaded) == ["a.weight"] and torch.equal(loaded["a.weight"], tensors["a.weight"])


def test_safetensors_files_load(tmp_path):
    tensors = {"a.weight": torch.arange(6.0).reshape(2, 3)}
    save_file(tensors, tmp_path / "toy.safetensors")
    loaded = weights.load_state_dict(spec_of_file(tmp_path, "toy.safetensors"))
    assert torch.equal(loaded["a.weight"], tensors["a.weight"])


class Malicious:
    """Unpickling this would create a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def save_as_pickle(content, path):
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("save", [torch.save, save_as_pickle])
def test_a_file_that_holds_code_is_refused_and_not_run(tmp_path, save):
    target = tmp_path / "owned"
    save({"model": Malicious(target)}, tmp_path / "toy.pt")
    with pytest.raises(WeightsCorrupt, match="damaged or holds more than tensors"):
        weights.load_state_dict(spec_of_file(tmp_path, "toy.pt"))
    assert not target.exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [(name, content) for name in ("toy.pt", "toy.safetensors") for content in (b"", b"something else", bytes(100))],
)
def test_a_file_of_another_kind_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    spec = make_spec(content, file=name, bytes=None)
    put(spec, content)
    with pytest.raises(WeightsCorrupt, match="holds no usable weights"):
        weights.load_state_dict(spec)


@pytest.mark.parametrize("content", [{"model": {"a": 1}}, [torch.ones(1)], {}, {"model": {}}])
def test_a_torch_file_without_a_mapping_of_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "toy.pt")
    with pytest.raises(WeightsCorrupt, match="not a mapping of names to tensors"):
        weights.load_state_dict(spec_of_file(tmp_path, "toy.pt"))


def test_weights_are_checked_before_they_are_read(tmp_path):
    spec = make_spec()
    put(spec, CONTENT[:-1])
    with pytest.raises(WeightsCorrupt, match="bytes instead of"):
        weights.load_state_dict(spec)


def test_the_bundled_model_is_the_default():
    assert weights.default_model().name == "sam2_nano"


def test_the_environment_chooses_the_default(monkeypatch):
    monkeypatch.setenv("SLICECAST_MODEL", "sam2.1_hiera_tiny")
    assert weights.default_model().name == "sam2.1_hiera_tiny"


def test_the_one_asked_for_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv("SLICECAST_MODEL", "sam2.1_hiera_tiny")
    assert weights.choose_model("medsam2").name == "medsam2"
    assert weights.choose_model(None).name == "sam2.1_hiera_tiny"


def test_an_unknown_model_in_the_environment_is_an_error(monkeypatch):
    monkeypatch.setenv("SLICECAST_MODEL", "sam9")
    with pytest.raises(UnknownModel, match="'sam9'"):
        weights.default_model()


def test_pulled_weights_become_the_default_in_the_order_of_the_registry():
    for name in ("sam2_hiera_tiny", "sam2.1_hiera_tiny"):
        spec = load_registry()[name]
        path = put(spec, b"")
        with path.open("wb") as file:
            file.truncate(spec.bytes)
    assert weights.default_model().name == "sam2.1_hiera_tiny"


def test_an_unsupported_model_cannot_be_chosen():
    with pytest.raises(ConfigError, match="cannot be run"):
        weights.choose_model("edgetam")
