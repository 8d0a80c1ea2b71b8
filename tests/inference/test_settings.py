import pytest

from slicecast.engine.options import EngineOptions
from slicecast.errors import ConfigError
from slicecast.inference.settings import LEAST_MB, MB, MOST_MB, EngineSettings, engine_settings


def test_the_shipped_file_holds_the_defaults():
    assert engine_settings() == EngineSettings()


def test_a_folder_without_the_file_means_the_defaults(tmp_path, monkeypatch):
    monkeypatch.setenv("SLICECAST_CONFIGS", str(tmp_path))
    assert engine_settings() == EngineSettings()
    (tmp_path / "engine.yaml").write_text("answer_mb: 7\n")
    assert engine_settings().answer_mb == 7
    (tmp_path / "engine.yaml").write_text("propagation: {gone_slices: 3, zoom: off}\n")
    assert engine_settings().propagation == EngineOptions(gone_slices=3, zoom="off")
    (tmp_path / "engine.yaml").write_text("propagation: {gone_slice: 3}\n")
    with pytest.raises(ConfigError, match=r"'gone_slice'.*'gone_slices'"):
        engine_settings()
    (tmp_path / "engine.yaml").write_text("anser_mb: 7\n")
    with pytest.raises(ConfigError, match=r"'anser_mb'.*'answer_mb'"):
        engine_settings()


def test_the_budget_follows_the_free_memory():
    auto = EngineSettings()
    assert auto.embedding_bytes(4000 * MB) == 1000 * MB
    assert auto.embedding_bytes(0) == LEAST_MB * MB and auto.embedding_bytes(1 << 50) == MOST_MB * MB
    assert LEAST_MB * MB <= auto.embedding_bytes() <= MOST_MB * MB
    assert EngineSettings(embedding_mb=5).embedding_bytes(1 << 50) == 5 * MB


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"embedding_mb": "much"}, "embedding_mb in engine.yaml is 'much'"),
        ({"embedding_mb": 0}, "give a whole number from 1"),
        ({"answer_mb": -1}, "answer_mb in engine.yaml is -1; give a whole number from 0"),
        ({"idle_encode": "yes"}, "true or false"),
        ({"compile": 1}, "true or false"),
    ],
)
def test_values_out_of_range_are_refused(wrong, complaint):
    with pytest.raises(ConfigError, match=complaint):
        EngineSettings(**wrong)
