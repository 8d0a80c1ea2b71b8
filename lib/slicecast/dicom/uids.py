"""DICOM identifiers that are the same in every run and on every machine."""

import re
import uuid

_NAMESPACE = uuid.UUID("6f1e5a52-2c55-5c0c-9a3e-5d1c0b6f7a11")


_UID = re.compile(r"[0-9][0-9.]{0,63}")


def is_uid(text: str) -> bool:
    """Tell whether a text from outside is a UID, and hence safe as the name of a file."""
    return bool(_UID.fullmatch(text))


def stable_uid(*words: str) -> str:
    """Derive a UID (`2.25.` and a number) from words; other words give another UID."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, chr(0).join(words)).int}"
