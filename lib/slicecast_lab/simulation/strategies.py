"""Names of strategies: the product's and the simulation's own; light to import, so that a wrong one is refused soon."""

from slicecast.active.slices import STRATEGIES as SLICES
from slicecast.active.volumes import STRATEGIES as VOLUMES
from slicecast.errors import ConfigError

OWN = ("random", "oracle_worst")
"""Strategies of the simulation itself: chance within what is seen, and the slice with the most wrong voxels."""

RAW = "raw:"  # Before a strategy's name: without what other labels taught about the model's confidence
ORACLE = "oracle"  # Knows the truth: takes the volume whose label helps the test volumes most, one after the other


def check_slices(name: str) -> None:
    """Raise ConfigError where a name is no slice strategy."""
    if name.removeprefix(RAW) not in (*SLICES, *OWN):
        raise ConfigError(f"There is no slice strategy '{name}'. Choose from: {', '.join([*SLICES, *OWN])}.")


def check_volumes(name: str) -> None:
    """Raise ConfigError where a name is no volume strategy."""
    if name not in (*VOLUMES, ORACLE):
        raise ConfigError(f"There is no volume strategy '{name}'. Choose from: {', '.join([*VOLUMES, ORACLE])}.")
