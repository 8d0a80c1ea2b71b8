"""Single fields of a request."""

import pytest

from slicecast.errors import ConfigError, PromptError
from slicecast.labelling.tasks import wire


@pytest.mark.parametrize(
    ("value", "read"), [(None, None), ("", None), ([], None), ("20:60", (20, 60)), ([3, 4], (3, 4))]
)
def test_range(value, read):
    assert wire.read_range(value) == read


@pytest.mark.parametrize("value", ["20", "a:b", "5:5", "-1:4", "1:2:3", 7, {"a": 1}, [1, None], float("inf")])
def test_range_that_is_none(value):
    with pytest.raises(ConfigError, match="write first:end"):
        wire.read_range(value)


@pytest.mark.parametrize(("value", "read"), [(None, None), ("", None), (0, 0), (7.0, 7)])
def test_slice(value, read):
    assert wire.read_slice(value) == read


@pytest.mark.parametrize("value", [-1, 1.5, "3", True, float("nan"), float("inf"), [1]])
def test_slice_that_is_none(value):
    with pytest.raises(PromptError, match="counted from 0"):
        wire.read_slice(value)


@pytest.mark.parametrize("value", [[1, 2, 3], "1,2,3,4", [1, 2, 3, "4"], [1, 2, 3, 4.5], [1, 2, 3, float("nan")], {}])
def test_roi_that_is_none(value):
    with pytest.raises(PromptError, match="'roi' is"):
        wire.read_roi(value)


@pytest.mark.parametrize("value", [True, "true", "True", "1", 1, "yes"])
def test_flag_on(value):
    assert wire.read_flag(value)


@pytest.mark.parametrize("value", [False, "false", "", None, 0, "0"])
def test_flag_off(value):
    assert not wire.read_flag(value)


def test_extension():
    assert wire.read_extension(None) is None
    assert wire.read_extension(".nii.gz") == ".nii.gz"
    with pytest.raises(ConfigError, match=r"'/../x.nii'; choose .nii.gz, .nrrd"):
        wire.read_extension("/../x.nii")


def test_long_values_are_shortened_in_messages():
    assert len(wire.short(list(range(1000)))) == 60
