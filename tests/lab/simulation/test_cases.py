"""Which cases are labelled, and which are measured on."""

import shutil

import pytest

from slicecast.errors import ConfigError
from slicecast_lab.evaluation.cases import content_of, find_split


def test_a_set_says_itself_which_cases_are_for_testing(folder):
    split = find_split(folder, (), pool=3)
    assert [c.id for c in split.pool] == ["p0_a", "p1_a", "p2_a"] and [c.id for c in split.test] == ["p5_a", "p6_a"]


def test_without_a_split_cases_are_divided_by_name(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "set", ignore=shutil.ignore_patterns("split.json"))
    split = find_split(copy, ())
    assert not {c.id for c in split.pool} & {c.id for c in split.test} and len(split.pool) + len(split.test) == 7
    assert find_split(copy, ()) == split


def test_too_few_to_divide_is_said(folder, tmp_path):
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "p0_a.nii.gz").symlink_to(folder / part / "p0_a.nii.gz")
    with pytest.raises(ConfigError, match=r"split\.json"):
        find_split(tmp_path, ())


def test_a_case_is_named_by_its_content(cases):
    assert content_of(cases[0]) == content_of(cases[0]) != content_of(cases[1])
