"""A session's log as JSON text, one record a row."""

import base64
import json
from typing import Any

from slicecast.engine.session import (
    Accept,
    Add,
    Change,
    Edit,
    Item,
    PackedMask,
    Painted,
    Record,
    Redo,
    Release,
    Remove,
    Reset,
    Undo,
)
from slicecast.errors import ConfigError
from slicecast.prompts import Absent, Box, Point


def encode_record(record: Record) -> str:
    """Return a record as JSON text."""
    match record:
        case Edit():
            return json.dumps({"edit": [_change_to_json(change) for change in record.changes]})
        case Undo():
            return json.dumps({"undo": True})
        case Redo():
            return json.dumps({"redo": True})


def decode_record(text: str) -> Record:
    """Return the record of a JSON text.

    Raises:
        ConfigError: it is not one that this version knows.
    """
    try:
        content = json.loads(text)
        if "edit" in content:
            return Edit(tuple(_change_of_json(change) for change in content["edit"]))
        known: dict[str, Record] = {"undo": Undo(), "redo": Redo()}
        return known[next(iter(content), "")]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ConfigError(f"A session's log holds {text[:80]!r}, which this version cannot read. Update it.") from error


def item_to_json(item: Item) -> dict[str, Any]:
    """Return a prompt as JSON values: its kind, and what it says in stored voxel indices."""
    match item:
        case Point():
            return {"kind": "point", "ijk": list(item.ijk), "positive": item.positive}
        case Box():
            return {"kind": "box", "low_ijk": list(item.low_ijk), "high_ijk": list(item.high_ijk)}
        case Absent():
            return {"kind": "absent", "slice": item.slice}
        case Painted():
            return {"kind": "painted", "slices": [{"slice": n, **_mask_to_json(m)} for n, m in item.slices]}


def item_of_json(content: dict[str, Any]) -> Item:
    """Return the prompt of JSON values made by :func:`item_to_json`."""
    match content["kind"]:
        case "point":
            return Point(tuple(content["ijk"]), content["positive"])
        case "box":
            return Box(tuple(content["low_ijk"]), tuple(content["high_ijk"]))
        case "absent":
            return Absent(content["slice"])
        case "painted":
            return Painted(tuple((entry["slice"], _mask_of_json(entry)) for entry in content["slices"]))
    raise KeyError(content["kind"])


def _change_to_json(change: Change) -> dict[str, Any]:
    match change:
        case Add():
            return {"add": change.id, "object": change.object, "item": item_to_json(change.item)}
        case Remove():
            return {"remove": change.id}
        case Accept():
            return {"accept": change.object, "slice": change.slice, **_mask_to_json(change.mask)}
        case Release():
            return {"release": change.object, "slice": change.slice}
        case Reset():
            return {"reset": True}


def _change_of_json(content: dict[str, Any]) -> Change:
    if "add" in content:
        return Add(content["add"], content["object"], item_of_json(content["item"]))
    if "remove" in content:
        return Remove(content["remove"])
    if "accept" in content:
        return Accept(content["accept"], content["slice"], _mask_of_json(content))
    if "release" in content:
        return Release(content["release"], content["slice"])
    return {"reset": Reset()}[next(iter(content), "")]


def _mask_to_json(mask: PackedMask) -> dict[str, Any]:
    return {"shape_hw": list(mask.shape_hw), "bits": base64.b64encode(mask.data).decode()}


def _mask_of_json(content: dict[str, Any]) -> PackedMask:
    rows, columns = content["shape_hw"]
    return PackedMask((rows, columns), base64.b64decode(content["bits"]))
