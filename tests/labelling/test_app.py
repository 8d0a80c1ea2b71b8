"""Settings of the app."""

import pytest

from slicecast.errors import ConfigError
from slicecast.labelling.app import asked_strategy
from slicecast.labelling.conf import DEFAULT_LABELS, AppConfig


def test_defaults():
    expected = AppConfig(labels=DEFAULT_LABELS, model=None, device="auto", follow_links=False, strategy="strat_random")
    assert AppConfig.from_conf(None) == expected


def test_from_text():
    conf = {
        "labels": " spleen, left kidney ,,liver",
        "model": "sam2.1_hiera_tiny",
        "device": "cpu",
        "follow_links": "true",
        "preannotate": "no",
    }
    config = AppConfig.from_conf({**conf, "server_mode": "true"})
    assert config.labels == ("spleen", "left kidney", "liver")
    assert (config.model, config.device, config.follow_links) == ("sam2.1_hiera_tiny", "cpu", True)
    assert not config.preannotate and AppConfig.from_conf({}).preannotate


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"label": "spleen"}, "Unknown setting 'label' in --conf. Did you mean 'labels'"),
        ({"labels": "spleen,liver,spleen"}, "names a label twice"),
        ({"follow_links": "perhaps"}, "write true or false"),
        ({"labels": ",".join(f"label {n}" for n in range(255))}, "names 255 labels; a mask numbers at most 254"),
        ({"labels": "spleen,background"}, "'background' cannot be a label"),
    ],
)
def test_settings_that_are_none(conf, message):
    with pytest.raises(ConfigError, match=message):
        AppConfig.from_conf(conf)


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        ({"strategy": "random"}, "coverage"),  # OHIF
        ({}, "coverage"),
        ({"strategy": "random", "client_id": ""}, "coverage"),
        ({"strategy": "random", "client_id": "user-7f3a"}, "random"),  # Slicer, where a menu chooses
        ({"strategy": "first"}, "first"),
    ],
)
def test_the_strategy_that_a_client_means(request_, name):
    assert asked_strategy(request_, own="coverage") == name
