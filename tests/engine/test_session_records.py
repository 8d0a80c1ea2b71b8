import json

import numpy as np
import pytest

from slicecast.engine.session import Accept, Add, Edit, PackedMask, Painted, Redo, Release, Remove, Reset, Undo
from slicecast.errors import ConfigError
from slicecast.inference.session_codec import decode_record, encode_record, item_of_json, item_to_json
from slicecast.prompts import Absent, Box, Point

DOT = PackedMask.of(np.eye(4, dtype=bool))
ITEMS = [Point((1, 2, 3)), Point((0, 0, 0), positive=False), Box((1, 2, 3), (4, 5, 3)), Absent(7), Painted(((2, DOT),))]
EDIT = Edit(
    (*(Add(f"p{n}", "höhle", item) for n, item in enumerate(ITEMS)), Remove("p1"), Accept("a", 3, DOT), Release("a", 3))
)


@pytest.mark.parametrize("record", [EDIT, Edit((Reset(),)), Undo(), Redo()])
def test_every_record_comes_back_as_it_was(record):
    text = encode_record(record)
    assert decode_record(text) == record and json.loads(text)


@pytest.mark.parametrize("item", ITEMS)
def test_every_prompt_comes_back_as_it_was(item):
    assert item_of_json(json.loads(json.dumps(item_to_json(item)))) == item


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"leap": true}', '{"edit": [{"add": "p1"}]}', '{"edit": [{}]}'])
def test_what_this_version_does_not_know_is_refused(text):
    with pytest.raises(ConfigError, match="this version cannot read"):
        decode_record(text)
