"""The mutations of safety fit the code of today, and one that is tried turns its tests red."""

import pytest

from slicecast_lab.benchmarks.mutations import REPOSITORY, Mutation, read_mutations, try_out


@pytest.mark.parametrize("mutation", read_mutations(), ids=lambda mutation: mutation.what)
def test_every_mutation_can_be_applied(mutation, tmp_path):
    file = tmp_path / "lib" / "slicecast" / mutation.file
    file.parent.mkdir(parents=True)
    file.write_bytes((REPOSITORY / "lib" / "slicecast" / mutation.file).read_bytes())
    assert mutation.apply(tmp_path) != file.read_text()
    compile(file.read_text(), file, "exec")
    assert all((REPOSITORY / test).is_file() for test in mutation.tests)


@pytest.mark.parametrize(("new", "red"), [("2", "tests/test_one.py::test_one"), ("1 ", "")])
def test_a_mutation_is_noticed_or_survives_and_is_taken_back(tmp_path, new, red):
    code, tests = tmp_path / "lib" / "slicecast" / "one.py", tmp_path / "tests"
    for folder in (code.parent, tests):
        folder.mkdir(parents=True)
    (code.parent / "__init__.py").touch()
    code.write_text("one = 1\n")
    (tests / "test_one.py").write_text("from slicecast.one import one\n\ndef test_one():\n    assert one == 1\n")
    assert try_out(Mutation("", "one.py", "1", new, ("tests/test_one.py",)), tmp_path) == red
    assert code.read_text() == "one = 1\n"
