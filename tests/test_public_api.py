"""``import slicecast`` offers few names, all of them on purpose and documented."""

import types

import slicecast

MAX_NAMES = 20


def test_the_door_is_narrow():
    assert len(slicecast.__all__) == len(set(slicecast.__all__)) <= MAX_NAMES


def test_every_name_in_all_can_be_used():
    for name in slicecast.__all__:
        assert getattr(slicecast, name) is not None, name


def test_nothing_public_is_missing_from_all():
    for name in slicecast.__all__:
        getattr(slicecast, name)  # names may be loaded on first use
    public = {
        name
        for name, value in vars(slicecast).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert public <= set(slicecast.__all__)


def test_dir_shows_all():
    assert set(slicecast.__all__) <= set(dir(slicecast))


def test_every_public_class_and_function_says_what_it_does():
    objects = [getattr(slicecast, name) for name in slicecast.__all__]
    silent = [obj.__name__ for obj in objects if isinstance(obj, type | types.FunctionType) and not obj.__doc__]
    assert silent == []


def test_the_version_is_a_release_number():
    assert [part.isdigit() for part in slicecast.__version__.split(".")] == [True, True, True]
