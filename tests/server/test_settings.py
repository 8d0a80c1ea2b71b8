import shutil

import pytest

from slicecast.config import project_dir
from slicecast.errors import ConfigError
from slicecast.server.settings import ServerSettings, server_settings


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Return what reads settings from a text."""

    def settings(text):
        (tmp_path / "server.yaml").write_text(text)
        monkeypatch.setenv("SLICECAST_CONFIGS", str(tmp_path))
        server_settings.cache_clear()
        return server_settings()

    yield settings
    server_settings.cache_clear()


def test_the_file_holds_the_defaults(read):
    text = (project_dir("configs") / "server.yaml").read_text(encoding="utf-8")
    assert read(text) == ServerSettings() == read("{}")


def test_settings_can_be_changed(read):
    settings = read("queue: {jobs: 2}\nsessions: {per_user: 3}\nproxy: {connections: 4}")
    assert (settings.queue.jobs, settings.sessions.per_user, settings.proxy.connections) == (2, 3, 4)
    assert settings.queue.waiting == ServerSettings().queue.waiting


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("queues: {}", "Unknown setting 'queues'"),
        ("queue: {job: 3}", "Did you mean 'jobs'"),
        ("queue: 3", "must be a mapping"),
        ("queue: {jobs: 0}", "setting jobs in server.yaml: queue is 0"),
        ("queue: {patience: soon}", "setting patience in .* is 'soon'; give a whole number from 1"),
        ("sessions: {per_user: -1}", "setting per_user in server.yaml is -1"),
        ("proxy: {body_mb: true}", "setting body_mb in server.yaml is True"),
    ],
)
def test_settings_that_cannot_be(read, text, message):
    with pytest.raises(ConfigError, match=message):
        read(text)


def test_a_missing_file(tmp_path, monkeypatch):
    shutil.rmtree(tmp_path / "server.yaml", ignore_errors=True)
    monkeypatch.setenv("SLICECAST_CONFIGS", str(tmp_path))
    server_settings.cache_clear()
    with pytest.raises(ConfigError, match="Cannot read"):
        server_settings()
    server_settings.cache_clear()
