"""Whether the tests of safety would notice: each mutation of `tests/mutations.yaml` must turn one of its tests red.

    python -m slicecast_lab.benchmarks.mutations                  # prints a table; an hour on two busy cores
    python -m slicecast_lab.benchmarks.mutations --only lease --only JSON

Works in a copy of the repository. First all those tests are run on the code as it is, which must be green.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from slicecast.config import build
from slicecast.errors import ConfigError
from slicecast.models.registry import bundled_spec
from slicecast_lab.evaluation.page import markdown
from slicecast_lab.evaluation.provenance import command_line, provenance

REPOSITORY = Path(__file__).parents[3]
LIST = REPOSITORY / "tests" / "mutations.yaml"
COPIED, LINKED = ("lib", "tests", "apps", "configs", "pyproject.toml"), ("sample-data", "docs", "README.md", "deploy")
LIMIT_S = 1200.0
"""Tests that take longer hang, which somebody would notice too."""
RED = 1
"""What pytest returns where a test failed."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """One change of one file that tests must notice."""

    what: str  # what goes wrong then
    file: str  # below lib/slicecast
    old: str  # a text that stands there once
    new: str  # what takes its place
    tests: tuple[str, ...]  # files of tests

    def apply(self, root: Path) -> str:
        """Change the file of a copy of the repository; return what it was.

        Raises:
            ConfigError: the text does not stand there once.
        """
        path = root / "lib" / "slicecast" / self.file
        before = path.read_text(encoding="utf-8")
        if before.count(self.old) != 1:
            raise ConfigError(f"'{self.old}' stands {before.count(self.old)} times in {self.file}. Mend {LIST.name}.")
        path.write_text(before.replace(self.old, self.new), encoding="utf-8")
        return before


def read_mutations() -> list[Mutation]:
    """Return the mutations of the list."""
    rows = yaml.safe_load(LIST.read_text(encoding="utf-8"))
    return [build(Mutation, {**row, "tests": tuple(row["tests"])}, where=LIST.name) for row in rows]


def copy_repository(target: Path) -> Path:
    """Copy what is mutated and tested; link the rest."""
    for name in COPIED:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
        else:
            shutil.copy(source, target / name)
    for name in LINKED:
        (target / name).symlink_to(REPOSITORY / name)
    return target


def run_tests(root: Path, tests: Sequence[str]) -> int:
    """Run tests of a copy until one fails; return pytest's exit status, `RED` where they hang."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": str(root / "lib"), "PYTHONDONTWRITEBYTECODE": "1"}
    with (root / "output.txt").open("w") as output:
        try:
            ended = subprocess.run(
                command, cwd=root, env=environment, stdout=output, stderr=output, timeout=LIMIT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return RED
    return ended.returncode


def try_out(mutation: Mutation, root: Path) -> str:
    """Return the test that a mutation turns red; "" where it survives."""
    before = mutation.apply(root)
    try:
        status = run_tests(root, mutation.tests)
    finally:
        (root / "lib" / "slicecast" / mutation.file).write_text(before, encoding="utf-8")
    if status == 0:
        return ""
    lines = (root / "output.txt").read_text(encoding="utf-8", errors="replace").splitlines()
    failed = [line.split()[1].partition("[")[0] for line in lines if line.startswith(("FAILED tests", "ERROR tests"))]
    return failed[0] if failed else f"(pytest {status})"


def main() -> None:
    """Try all mutations, and print what became of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[], help="mutations whose words hold this; may be repeated")
    given = parser.parse_args()
    chosen = [one for one in read_mutations() if not given.only or any(word in one.what for word in given.only)]
    source = provenance(bundled_spec(), command_line("python -m slicecast_lab.benchmarks.mutations"), device="cpu")
    print({key: source[key] for key in ("date", "commit", "machine")}, flush=True)
    begun, rows = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="slicecast-mutations-") as folder:
        root = copy_repository(Path(folder))
        tests = sorted({test for mutation in chosen for test in mutation.tests})
        if run_tests(root, tests):
            sys.exit(f"These tests fail without any mutation:\n{(root / 'output.txt').read_text()[-3000:]}")
        for mutation in chosen:
            red = try_out(mutation, root)
            rows.append({"mutation": mutation.what, "file": mutation.file, "red": red or "**none: survived**"})
            print(f"{len(rows)}/{len(chosen)} {mutation.what}: {red or 'SURVIVED'}", flush=True)
    killed = sum("survived" not in row["red"] for row in rows)
    print(f"\n{markdown(rows)}\n{killed} of {len(rows)} red, {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
