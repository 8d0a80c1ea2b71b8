"""A server process is stopped whatever happens, and explains why it did not start."""

import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from slicecast.demo import server_process
from slicecast.demo.server_process import free_port, running_server
from slicecast.errors import ResourceError

SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"{}")
    def log_message(self, *args): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_it_answers_and_is_gone_afterwards(tmp_path):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with (
        pytest.raises(ZeroDivisionError),
        running_server([sys.executable, "-c", SERVER, str(port)], url=url, log=tmp_path / "log") as server,
    ):
        assert server.start_s > 0
        with urllib.request.urlopen(f"{server.url}/info/") as answer:
            assert answer.read() == b"{}"
        1 / 0  # noqa: B018
    with pytest.raises(OSError):
        urllib.request.urlopen(f"{url}/info/")


def test_the_last_words_of_a_server_that_ended(tmp_path):
    command = [sys.executable, "-c", "raise SystemExit('no weights')"]
    with (
        pytest.raises(ResourceError, match=r"ended with status 1\. Its last words: no weights"),
        running_server(command, url="http://127.0.0.1:9", log=tmp_path / "log"),
    ):
        pass


def test_one_that_never_answers(tmp_path, monkeypatch):
    monkeypatch.setattr(server_process, "START_LIMIT_S", 0.3)
    command = [sys.executable, "-c", "import time; print('thinking', flush=True); time.sleep(60)"]
    with (
        pytest.raises(ResourceError, match=r"did not answer within 0.3 seconds"),
        running_server(command, url=f"http://127.0.0.1:{free_port()}", log=tmp_path / "log"),
    ):
        pass
    assert Path(tmp_path / "log").exists()


def test_one_that_will_not_stop_is_killed(monkeypatch):
    monkeypatch.setattr(server_process, "STOP_LIMIT_S", 0.3)
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        server_process._stop(process)
        assert process.returncode == -9
