"""JSON that other programs can read again."""

import json

import pytest

from slicecast.server.security.limits import parse


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("NaN", "no JSON number"),
        ('{"a": [-Infinity]}', "no JSON number"),
        ("1e999", "too large"),
        (r'{"a": "\ud800"}', "half a character"),
        (r'{"\udfff": 1}', "half a character"),
        ("[" * 5 + "]" * 5, "nested more than 4 deep"),
        ("[" * 100_000, "nested more than 4 deep"),
        ("{", "Expecting"),
        (b"\xff\xfe", "decode|Expecting|utf"),
        ("1" * 5000, "limit"),
    ],
)
def test_refused(text, why):
    with pytest.raises(ValueError, match=why):
        parse(text, max_depth=4)


@pytest.mark.parametrize("value", [{}, [], None, 1.5, "ä😀", {"a": [{"b": "c"}]}, [[[]]]])
def test_read(value):
    assert parse(json.dumps(value), max_depth=4) == value
