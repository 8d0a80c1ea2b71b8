"""Single fields of a client's request, as JSON brought them, turned into values or refused with a reason."""

from collections.abc import Mapping, Sequence
from typing import Any

from slicecast.errors import ConfigError, PromptError
from slicecast.prompts import Absent, Point
from slicecast.prompts.model import MAX_POINTS

IJK = tuple[int, int, int]

EXTENSIONS = (".nii.gz", ".nrrd", ".nii", ".mha")
"""Formats in which a mask can be sent back."""


def read_points(value: Any, key: str) -> tuple[IJK, ...]:
    """Read a list of voxel indices; absent and null are empty, and a repeated click counts once.

    Raises:
        PromptError: it is no list of [i, j, k], or too long.
    """
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise PromptError(f"'{key}' is {short(value)}; send a list of voxel indices such as [[120, 88, 41]].")
    if len(value) > MAX_POINTS:
        raise PromptError(f"'{key}' holds {len(value)} points; at most {MAX_POINTS} are accepted. Remove some.")
    return tuple(dict.fromkeys(Point(_triple(entry, key)).ijk for entry in value))


def looks_like_points(value: Any) -> bool:
    """Tell whether a value is a list of points, and not some option."""
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(entry, list) and len(entry) == 3 for entry in value)


def read_roi(value: Any) -> tuple[int, ...] | None:
    """Read the four or six whole numbers of a region of interest.

    Raises:
        PromptError: it is something else.
    """
    if value is None or value in ([], ""):
        return None
    if not isinstance(value, list | tuple) or len(value) not in (4, 6) or not all(_is_number(n) for n in value):
        raise PromptError(f"'roi' is {short(value)}; send six numbers, i0, i1, j0, j1, k0, k1 (or four on one slice).")
    if any(n != n // 1 for n in value):
        raise PromptError(f"'roi' is {short(value)}; its numbers must be whole voxel indices.")
    return tuple(int(n) for n in value)


def read_slice(value: Any) -> int | None:
    """Read the slice of a 2D client.

    Raises:
        PromptError: it is no whole number from 0.
    """
    if value is None or value == "":
        return None
    if not _is_number(value) or value != value // 1 or value < 0:
        raise PromptError(f"'slice' is {short(value)}; send the slice's k, a whole number counted from 0.")
    return int(value)


def read_absent(value: Any, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Read which slices do not show an object: a list for all of `names`, or lists by name.

    Raises:
        PromptError: it is something else.
    """
    lists = value if isinstance(value, Mapping) else dict.fromkeys(names, value or [])
    found = {}
    for name, numbers in lists.items():
        if not isinstance(numbers, list | tuple):
            raise PromptError(
                f"'absent' is {short(value)}; send slice numbers, such as [3, 40] or {{\"spleen\": [3]}}."
            )
        found[str(name)] = tuple(dict.fromkeys(Absent(number).slice for number in numbers))
    return found


def read_range(value: Any) -> tuple[int, int] | None:
    """Read "first:end" or [first, end], half-open.

    Raises:
        ConfigError: it is something else, or empty.
    """
    if value is None or value in ([], ""):
        return None
    hint = "write first:end, such as 20:60 for slices 20 to 59."
    try:
        first, end = (int(part) for part in (value.split(":") if isinstance(value, str) else value))
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"'range' is {short(value)}; {hint}") from error
    if not 0 <= first < end:
        raise ConfigError(f"'range' {first}:{end} holds no slice; {hint}")
    return first, end


def read_word(value: Any, key: str, *, default: str) -> str:
    """Read a choice; some clients send the whole list of choices, whose first is meant.

    Raises:
        ConfigError: it is no word.
    """
    word = value[0] if isinstance(value, list) and value else value
    if word is None or word in ([], ""):
        return default
    if not isinstance(word, str):
        raise ConfigError(f"'{key}' is {short(word)}; send a word, such as '{default}'.")
    return word


def read_extension(value: Any) -> str | None:
    """Read the format of the answer.

    Raises:
        ConfigError: masks are not written in it.
    """
    if value is None or value == "":
        return None
    if value not in EXTENSIONS:
        raise ConfigError(f"'result_extension' is {short(value)}; choose {', '.join(EXTENSIONS)}.")
    return str(value)


def read_flag(value: Any) -> bool:
    """Read a switch, sent as a boolean, a number or a word."""
    return value.strip().lower() in ("true", "1", "yes", "on") if isinstance(value, str) else bool(value)


def read_name(value: Any, *, default: str) -> str:
    """Read a label's name."""
    return value.strip() if isinstance(value, str) and value.strip() else default


def short(value: Any) -> str:
    """Show a value in a message, but never a page of it."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _triple(entry: Any, key: str) -> Any:
    if not isinstance(entry, list | tuple) or len(entry) != 3 or not all(_is_number(n) for n in entry):
        raise PromptError(f"'{key}' holds {short(entry)}; a point is three numbers, the voxel index [i, j, k].")
    return entry


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
