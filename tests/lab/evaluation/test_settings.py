"""What may be asked for."""

import pytest

from slicecast.errors import ConfigError
from slicecast_lab.evaluation.settings import Settings, parse_prompt, parse_values


def test_words_are_read():
    assert parse_prompt("mask") == ("mask", 1) and parse_prompt("clicks:5") == ("clicks", 5)
    assert parse_values("1, 2") == (1, 2)


@pytest.mark.parametrize("words", ["clicks", "clicks:", "clicks:-1", "scribble", ""])
def test_other_prompts_are_refused(words):
    with pytest.raises(ConfigError, match="mask, box, or clicks:N"):
        parse_prompt(words)


@pytest.mark.parametrize("words", ["", "0", "a", "1,,2", "-1"])
def test_other_labels_are_refused(words):
    with pytest.raises(ConfigError, match="positive whole numbers"):
        parse_values(words)


@pytest.mark.parametrize(
    "wrong",
    [
        {"prompt": "text"},
        {"slice": "first"},
        {"unit": "cm"},
        {"baselines": ("magic",)},
        {"clicks": 0},
        {"corrections": -1},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError):
        Settings(**wrong)


def test_the_prompt_is_said_as_it_is_typed():
    assert [Settings(prompt="clicks", clicks=5).prompt_words, Settings(prompt="box").prompt_words] == [
        "clicks:5",
        "box",
    ]
