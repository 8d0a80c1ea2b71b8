"""What can be asked of an evaluation: its settings, and how they are typed. Imports nothing that takes long."""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from slicecast.errors import ConfigError
from slicecast.models.registry import ModelSpec
from slicecast.models.weights import choose_models

SliceRule = Literal["largest", "centre", "quarter"]
PromptKind = Literal["mask", "box", "clicks", "line", "ends"]
Baseline = Literal["copy", "copy-extent", "region", "levelset", "walker", "monailabel"]
Unit = Literal["mm", "voxel"]

ProtocolName = Literal["fixed", "seed-exact"]  # Ours; as published, see `slicecast_lab.evaluation.seed`

FIXED, SEED_EXACT = get_args(ProtocolName)

MAX_ROUNDS = 50
SALIENT_VOXELS = 256

FORMATS = (".png", ".pdf", ".svg")  # Of pictures


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the annotator is played and what is compared; raises ConfigError if a value is out of range."""

    prompt: PromptKind = "mask"  # what is given on the first slice
    clicks: int = 1  # how many clicks, for the prompt ``clicks``
    slice: SliceRule = "largest"  # which slice is prompted
    corrections: int = 0  # what follows, by each of `prompts.CLICKED_RULES`, or CORRECTION_RULES
    # also paint every so many of the object's slices, and its largest, beside interpolations of them
    every: tuple[int, ...] = ()
    # other methods, from the mask of the same slice; ``monailabel`` from the same prompts
    baselines: tuple[Baseline, ...] = ()
    unit: Unit = "mm"  # of surface distances; ``voxel`` where a set stores no true spacing

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
        """The prompt as typed, such as ``mask`` or ``clicks:N``."""
        return f"clicks:{self.clicks}" if self.prompt == "clicks" else self.prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedSettings:
    """What the published protocol leaves open; raises ConfigError if a value is out of range."""

    prompt: Literal["mask", "clicks"] = "mask"  # ``mask`` or ``clicks``
    clicks: int = 1  # how many
    salient: int = SALIENT_VOXELS  # a slice counts as salient with more voxels than this; 0 adds slices at random
    seed: int = 0  # of these

    def __post_init__(self) -> None:
        if self.prompt not in ("mask", "clicks"):
            raise ConfigError(f"The protocol {SEED_EXACT} knows no prompt {self.prompt!r}. Use mask or clicks:N.")
        if not 1 <= self.clicks <= MAX_ROUNDS:
            raise ConfigError(f"{self.clicks} clicks were asked for; give 1 to {MAX_ROUNDS}.")
        if self.salient < 0:
            raise ConfigError(f"A slice cannot have more than {self.salient} voxels only; give 0 or more.")

    @property
    def prompt_words(self) -> str:
        """The prompt as typed: ``mask`` or ``clicks:N``."""
        return f"clicks:{self.clicks}" if self.prompt == "clicks" else self.prompt


def parse_prompt(words: str) -> tuple[PromptKind, int]:
    """Read ``mask``, ``box``, ``line``, ``ends`` or ``clicks:N``; return the kind and the number of clicks.

    Raises:
        ConfigError: it is none of these.
    """
    alone: tuple[PromptKind, ...] = ("mask", "box", "line", "ends")
    for kind in alone:
        if words == kind:
            return kind, 1
    found = re.fullmatch(r"clicks:(\d+)", words)
    if not found:
        raise ConfigError(
            f"The prompt {words!r} is not known. Use mask, box, line, ends, or clicks:N such as clicks:5."
        )
    return "clicks", int(found[1])


def parse_values(words: str) -> tuple[int, ...]:
    """Read label values such as ``1,2``; raises ConfigError if they are not positive whole numbers."""
    parts = [part.strip() for part in words.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(f"The label {words!r} is not a list of positive whole numbers such as 1 or 1,2.")
    return tuple(int(part) for part in parts)


def parse_numbers(words: str) -> tuple[int, ...]:
    """Read numbers of labels such as ``0,1,2``; raises ConfigError if they are not whole numbers."""
    for word in words.split(","):
        if not word.strip().isdecimal():
            raise ConfigError(f"{word!r} in {words!r} is no whole number. Give numbers of labels such as 0,1,2,5.")
    return tuple(map(int, words.split(",")))


AXES = "axes"  # What stands after the + for SAM 2 along all three axes


def named_specs(name: str) -> tuple[ModelSpec, ...]:
    """Return the models that an engine's name stands for: as for `choose_models`, or `A+axes` of a SAM 2.

    Raises:
        UnknownModel: no model of that name.
        ConfigError: this version cannot run that model, or not these together.
    """
    alone = name.removesuffix(f"+{AXES}")
    specs = choose_models(alone)
    if alone != name and (len(specs) > 1 or specs[0].volumetric):
        raise ConfigError(f"{name} is no engine. Only a SAM 2 alone goes along all '{AXES}'.")
    return specs


def require_sam2(name: str, what: str) -> None:
    """Raise ConfigError if an engine is not a SAM 2 alone, as `what` needs it."""
    if "+" in name or named_specs(name)[0].volumetric:
        raise ConfigError(f"{name} is no SAM 2, which {what} needs. Name one of 'slicecast models list'.")
