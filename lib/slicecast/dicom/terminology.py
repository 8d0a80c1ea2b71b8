"""Codes for the names of labels, from `configs/terminology.yaml`."""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from highdicom.sr.coding import CodedConcept

from slicecast.config import config_dir, read_config, refuse_unknown_keys
from slicecast.errors import ConfigError

FILE = "terminology.yaml"
SIDES = {"left": ("7771000", "SCT", "Left"), "right": ("24028007", "SCT", "Right")}

Code = tuple[str, str, str]
"""Value, scheme, meaning."""


@dataclass(frozen=True, slots=True)
class Term:
    """Codes of a label: category, type, and side if its name has one."""

    category: Code
    type: Code
    side: Code | None = None

    def concepts(self) -> tuple[CodedConcept, CodedConcept]:
        """Return category and type as coded concepts."""
        return concept(self.category), concept(self.type)


def concept(code: Code) -> CodedConcept:
    """Turn a code into a DICOM item."""
    value, scheme, meaning = code
    return CodedConcept(value, scheme, meaning)


def term_for(name: str) -> Term:
    """Look up a label's name: whole, then without its side, then the default.

    Raises:
        ConfigError: `terminology.yaml` is wrong.
    """
    default, structures = _load(str(config_dir()))
    words = _plain(name)
    if words in structures:
        return structures[words]
    side = next((word for word in SIDES if word in words.split()), None)
    rest = " ".join(word for word in words.split() if word != side)
    found = structures.get(rest, default)
    return Term(found.category, found.type, SIDES[side] if side else None)


def _plain(name: str) -> str:
    return " ".join(re.split(r"[\s_\-]+", name.strip().casefold()))


@lru_cache(maxsize=8)
def _load(folder: str) -> tuple[Term, dict[str, Term]]:
    where = f"{folder}/{FILE}"
    content = read_config(FILE, known=("default", "structures"))
    structures: dict[str, Term] = {}
    for entry in content.get("structures") or []:
        refuse_unknown_keys(entry, ("names", "category", "type"), where=where)
        for name in entry.get("names", ()):
            structures.setdefault(_plain(str(name)), _term(entry, where))
    return _term(content.get("default") or {}, where), structures


def _term(entry: dict[str, Any], where: str) -> Term:
    return Term(_code(entry.get("category"), where), _code(entry.get("type"), where))


def _code(value: Any, where: str) -> Code:
    if not isinstance(value, list) or len(value) != 3 or not all(str(word).strip() for word in value):
        raise ConfigError(f"{where} holds the code {value!r}; write [value, scheme, meaning].")
    return str(value[0]), str(value[1]), str(value[2])
