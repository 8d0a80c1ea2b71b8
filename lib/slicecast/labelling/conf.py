"""The app's settings, as `--conf KEY VALUE` gives them; light to import: `slicecast serve` checks them first."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from slicecast.active.volumes import active_settings
from slicecast.config import refuse_unknown_keys
from slicecast.errors import ConfigError
from slicecast.labelling.tasks.request import MAX_LABELS, RESERVED

DEFAULT_LABELS = ("object",)  # Used when no label is configured: without any, OHIF offers no points
STOCK_KEYS = ("server_mode",)  # Settings that MONAI Label itself adds


@dataclass(frozen=True, slots=True)
class AppConfig:
    """The app's settings."""

    labels: tuple[str, ...] = DEFAULT_LABELS  # names of the structures, in the order of the menus
    model: str | None = None  # name in `configs/models.yaml`; None for the default
    device: str = "auto"  # auto, cpu, cuda, cuda:1, mps
    follow_links: bool = False  # list links in the studies that lead out of them
    # chooses the next image for a client that names none, or cannot (see `asked_strategy`). Default: the one of
    # `configs/active.yaml`.
    strategy: str = ""
    insecure: bool = False  # answer other machines although nobody logs in (see `slicecast.server.security.gate`)
    # a submitted label starts pre-annotations of other images (see `slicecast.labelling.preannotation`)
    preannotate: bool = True

    @classmethod
    def from_conf(cls, conf: Mapping[str, str] | None) -> "AppConfig":
        """Read `--conf` pairs, which are text; raises ConfigError if a key is unknown, or a value impossible."""
        given = {key: str(value).strip() for key, value in (conf or {}).items()}
        own = [field.name for field in fields(cls)]
        refuse_unknown_keys(given, [*own, *STOCK_KEYS], where="--conf")
        return cls(
            labels=_labels(given.get("labels", "")),
            model=given.get("model") or None,
            device=given.get("device") or "auto",
            follow_links=_switch("follow_links", given.get("follow_links", "false")),
            strategy=given.get("strategy") or active_settings().strategy,
            insecure=_switch("insecure", given.get("insecure", "false")),
            preannotate=_switch("preannotate", given.get("preannotate", "true")),
        )


def _labels(text: str) -> tuple[str, ...]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if len(set(names)) != len(names):
        raise ConfigError(f"--conf labels '{text}' names a label twice. Give each once.")
    if len(names) > MAX_LABELS:
        raise ConfigError(f"--conf labels names {len(names)} labels; a mask numbers at most {MAX_LABELS}. Name fewer.")
    for name in RESERVED & set(names):
        raise ConfigError(f"--conf labels: '{name}' cannot be a label, because requests use that word. Rename it.")
    return tuple(names) or DEFAULT_LABELS


def _switch(key: str, text: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in words:
        raise ConfigError(f"--conf {key} is '{text}'; write true or false.")
    return words[text.lower()]
