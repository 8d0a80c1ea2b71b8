"""Settings of the choice of volumes, from `configs/active.yaml`."""

from dataclasses import dataclass

from slicecast.active.volumes import is_strategy
from slicecast.config import build, read_config
from slicecast.errors import ConfigError

FILE = "active.yaml"


@dataclass(frozen=True, slots=True)
class ActiveSettings:
    """What `configs/active.yaml` says.

    Args:
        strategy: the campaign's own.
        offered: names in the clients' menus.
        background: look at volumes while nobody works; otherwise strategies that need it choose by chance.
        share: of the volumes without a label, the share looked at in each round.
        least: but at least so many.
        budget: volumes that are to be labelled in all; 0 for every one there is.
        seed: of all chance.

    Raises:
        ConfigError: a value is unknown or out of range.
    """

    strategy: str = "strat_random"
    offered: tuple[str, ...] = ("random", "strat_random", "coverage", "auto")
    background: bool = True
    share: float = 0.25
    least: int = 50
    budget: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "offered", tuple(self.offered))
        for name in self.offered:
            if not is_strategy(name):
                raise ConfigError(f"The setting offered in {FILE} names '{name}', which is no strategy. Remove it.")
        if not 0.0 < self.share <= 1.0:
            raise ConfigError(f"The setting share in {FILE} is {self.share!r}; give a number above 0, at most 1.")
        for name, least in (("least", 1), ("budget", 0), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"The setting {name} in {FILE} is {value!r}; give a whole number from {least}.")


def active_settings() -> ActiveSettings:
    """Read `configs/active.yaml`.

    Raises:
        ConfigError: the file is missing, or a setting is unknown or out of range.
    """
    return build(ActiveSettings, read_config(FILE), where=FILE)
