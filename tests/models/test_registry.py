import re

import pytest
import yaml

from slicecast.errors import ConfigError, UnknownModel
from slicecast.models.registry import ModelSpec, bundled_spec, get_spec, load_registry

FIELDS = {
    "name": "x",
    "title": "X",
    "architecture": "configs/sam2.1/sam2.1_hiera_t.yaml",
    "image_size": 1024,
    "file": "x.pt",
    "licence": "Apache-2.0",
    "url": "https://example.org/x.pt",
    "bytes": 1,
    "sha256": "0" * 64,
}


@pytest.fixture
def configs(tmp_path, monkeypatch):
    """An empty configs folder in place of the project's, and a function that writes its registry."""
    monkeypatch.setenv("SLICECAST_CONFIGS", str(tmp_path))

    def write(models):
        (tmp_path / "models.yaml").write_text(yaml.safe_dump({"models": models}, sort_keys=False))
        return tmp_path

    return write


def entry(**changes):
    return {key: value for key, value in {**FIELDS, **changes}.items() if key != "name"}


def test_every_public_checkpoint_of_sam2_and_its_kin_is_known():
    sizes = ("tiny", "small", "base_plus", "large")
    expected = {f"{family}_hiera_{size}" for family in ("sam2", "sam2.1") for size in sizes}
    volumetric = {"sam_med3d", "ct_sam3d", "sam_med3d_nano", "ct_sam3d_nano"}
    assert set(load_registry()) >= expected | volumetric | {"medsam2", "edgetam", "sam2_nano"}


def test_every_model_that_can_be_pulled_has_a_size_and_a_hash():
    for spec in load_registry().values():
        if spec.supported and not (spec.bundled or spec.volumetric):  # of these nobody published any
            assert spec.url and spec.bytes and spec.sha256, spec.name


def test_a_file_has_one_hash_and_a_hash_one_file():
    known = {(spec.file, spec.sha256) for spec in load_registry().values() if spec.sha256}
    assert len({file for file, _ in known}) == len({sha256 for _, sha256 in known}) == len(known)


def test_every_supported_architecture_exists():
    from importlib import resources
    from pathlib import Path

    for spec in load_registry().values():
        if spec.supported:
            own = Path(spec.architecture)
            assert own.is_file() or resources.files("sam2").joinpath(spec.architecture).is_file(), spec.name


def test_medsam2_runs_at_its_own_size_on_the_tiny_network():
    spec = get_spec("medsam2")
    assert (spec.image_size, spec.architecture) == (512, "configs/sam2.1/sam2.1_hiera_t.yaml")
    assert "research" in spec.licence


def test_only_the_bundled_model_uses_carry_and_drawn_prompts():
    used = [spec.name for spec in load_registry().values() if spec.carry or spec.dense_prompts]
    assert used == [bundled_spec().name] == ["sam2_nano"]


def test_unsupported_models_say_why():
    spec = get_spec("edgetam")
    assert not spec.supported and "sam2 package" in spec.unsupported


def test_unknown_model_lists_the_known_ones():
    with pytest.raises(UnknownModel, match=r"No model 'sam3'\. Known models: medsam2, .*sam2_nano"):
        get_spec("sam3")


def test_registry_keeps_the_order_of_the_file(configs):
    configs({"b": entry(file="b.pt"), "a": entry(file="a.pt")})
    assert list(load_registry()) == ["b", "a"]


def test_an_architecture_beside_the_registry_becomes_an_absolute_path(configs):
    folder = configs({"mine": entry(architecture="configs/mine.yaml")})
    (folder / "mine.yaml").write_text("model: {}")
    assert load_registry()["mine"].architecture == str(folder / "mine.yaml")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("image_size", 1000, "multiple of 16"),
        ("image_size", 0, "multiple of 16"),
        ("image_size", "1024", "multiple of 16"),
        ("file", "../x.pt", "plain file name"),
        ("file", "", "plain file name"),
        ("url", "ftp://example.org/x.pt", "https://"),
        ("url", None, "https://"),
        ("sha256", "ABC", "64 lower-case hex digits"),
        ("sha256", None, "64 lower-case hex digits"),
        ("bytes", 0, "positive number"),
        ("licence", "", "licence must not be empty"),
        ("architecture", None, "needs an architecture"),
    ],
)
def test_spec_refuses(field, value, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        ModelSpec(**{**FIELDS, field: value})


def test_a_bundled_model_needs_no_url():
    assert ModelSpec(**{**FIELDS, "url": None, "bundled": True}).supported


def test_a_misspelt_field_is_named(configs):
    configs({"x": entry(sha265="0" * 64)})
    with pytest.raises(ConfigError, match=r"Unknown setting 'sha265' in model 'x'.*Did you mean 'sha256'"):
        load_registry()


def test_a_missing_field_is_named(configs):
    configs({"x": {key: value for key, value in entry().items() if key != "licence"}})
    with pytest.raises(ConfigError, match=r"'licence' is missing in model 'x'"):
        load_registry()


@pytest.mark.parametrize("models", [{}, None, ["a"]])
def test_a_registry_without_models_is_refused(configs, models):
    configs(models)
    with pytest.raises(ConfigError, match="names no models"):
        load_registry()


def test_an_entry_that_is_not_a_mapping_is_refused(configs):
    configs({"x": "sam2"})
    with pytest.raises(ConfigError, match="'sam2'; it must be a mapping"):
        load_registry()


@pytest.mark.parametrize(("bundled", "found"), [(0, "marks none"), (2, "marks m0, m1")])
def test_exactly_one_model_must_be_bundled(configs, bundled, found):
    configs({f"m{n}": entry(file=f"{n}.pt", bundled=n < bundled) for n in range(2)})
    with pytest.raises(ConfigError, match=found):
        bundled_spec()
