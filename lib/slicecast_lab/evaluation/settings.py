"""What is measured: prompts, slice, corrections and baselines of one evaluation."""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from slicecast.errors import ConfigError

SliceRule = Literal["largest", "centre", "quarter"]
PromptKind = Literal["mask", "box", "clicks"]
Baseline = Literal["copy", "copy-extent", "region", "levelset", "walker", "monailabel"]
Unit = Literal["mm", "voxel"]

MAX_ROUNDS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the annotator is played and what is compared.

    Args:
        prompt: what is given on the first slice.
        clicks: how many clicks, for the prompt ``clicks``.
        slice: which slice is prompted.
        corrections: further slices painted after that, by each of the three choices.
        baselines: other methods, from the mask of the same slice; ``monailabel`` from the same prompts.
        unit: of surface distances; ``voxel`` where a set stores no true spacing.

    Raises:
        ConfigError: a value is out of range.
    """

    prompt: PromptKind = "mask"
    clicks: int = 1
    slice: SliceRule = "largest"
    corrections: int = 0
    baselines: tuple[Baseline, ...] = ()
    unit: Unit = "mm"

    def __post_init__(self) -> None:
        for what, value, kinds in (
            ("prompt", self.prompt, PromptKind),
            ("slice", self.slice, SliceRule),
            ("unit", self.unit, Unit),
            *(("baseline", name, Baseline) for name in self.baselines),
        ):
            if value not in get_args(kinds):
                raise ConfigError(f"There is no {what} {value!r}. Use one of {', '.join(get_args(kinds))}.")
        if not 1 <= self.clicks <= MAX_ROUNDS:
            raise ConfigError(f"{self.clicks} clicks were asked for; give 1 to {MAX_ROUNDS}.")
        if not 0 <= self.corrections <= MAX_ROUNDS:
            raise ConfigError(f"{self.corrections} corrections were asked for; give 0 to {MAX_ROUNDS}.")

    @property
    def prompt_words(self) -> str:
        """The prompt as typed: ``mask``, ``box`` or ``clicks:N``."""
        return f"clicks:{self.clicks}" if self.prompt == "clicks" else self.prompt


def parse_prompt(words: str) -> tuple[PromptKind, int]:
    """Read ``mask``, ``box`` or ``clicks:N``; return the kind and the number of clicks.

    Raises:
        ConfigError: it is none of these.
    """
    if words == "mask":
        return "mask", 1
    if words == "box":
        return "box", 1
    found = re.fullmatch(r"clicks:(\d+)", words)
    if not found:
        raise ConfigError(f"The prompt {words!r} is not known. Use mask, box, or clicks:N such as clicks:5.")
    return "clicks", int(found[1])


def parse_values(words: str) -> tuple[int, ...]:
    """Read label values such as ``1,2``.

    Raises:
        ConfigError: they are not positive whole numbers.
    """
    parts = [part.strip() for part in words.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(f"The label {words!r} is not a list of positive whole numbers such as 1 or 1,2.")
    return tuple(int(part) for part in parts)
