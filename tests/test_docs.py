"""The documentation is under test: nothing in it is out of date, and nothing that users can set is missing from it."""

import doctest
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from slicecast import config, errors
from slicecast.cli import main

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
ALL_TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
COMMAND_PAGE = ROOT / "docs" / "cli.md"

NETWORK_DESCRIPTIONS = {"sam2_nano.yaml"}
"""These speak the sam2 package's language, which is not ours to document."""

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
ERROR_ROW = re.compile(r"^\| `(\w+)` \|.*\| (\d+) \| (\d+) \|$", re.MULTILINE)
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def code_blocks(text: str, *languages: str) -> list[str]:
    return [code for language, code in FENCE.findall(text) if language in languages]


def prose(text: str) -> str:
    """Return a page without its code blocks."""
    return FENCE.sub("", text)


def anchor(heading: str) -> str:
    """Return the fragment that GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def sections(text: str) -> dict[str, str]:
    """Return the text under each heading, without marks of code in the heading."""
    parts = HEADING.split(text)
    return {heading.replace("`", ""): body for heading, body in zip(parts[1::2], parts[2::2], strict=True)}


def commands() -> Iterator[tuple[str, Any]]:
    """Yield every command that does something, as typed: ``slicecast models pull``."""
    for name in main.command_files():
        command = main.load_command(name)
        below = getattr(command, "commands", None)
        if below is None:
            yield f"slicecast {name}", command
        else:
            yield from ((f"slicecast {name} {word}", child) for word, child in below.items())
    for name in main.lab_command_files().keys() & main.product_command_files().keys():
        command = main.load_command(name, main.lab_command_files()[name])
        yield from ((f"slicecast lab {name} {word}", child) for word, child in command.commands.items())


def long_options(command: Any) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts if option.startswith("--")} - {"--help"}


def settings() -> Iterator[tuple[str, str]]:
    """Yield (file, key) for every key of the YAML files, at any depth."""

    def keys(content: Any) -> Iterator[str]:
        for key, value in content.items() if isinstance(content, dict) else ():
            yield str(key)
            yield from keys(value)

    folder = config.config_dir()
    for path in sorted(folder.rglob("*.yaml")):
        if path.name not in NETWORK_DESCRIPTIONS:
            yield from ((path.relative_to(folder).as_posix(), key) for key in keys(yaml.safe_load(path.read_text())))


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_there_are_pages():
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/cli.md"} <= {page_id(page) for page in PAGES}


def test_every_command_and_option_has_its_place():
    reference = sections(COMMAND_PAGE.read_text(encoding="utf-8"))
    missing = [name for name, _ in commands() if name not in reference]
    missing += [
        f"{name} {option}"
        for name, command in commands()
        for option in sorted(long_options(command))
        if f"`{option}" not in reference.get(name, "")
    ]
    assert missing == []


def test_every_setting_is_documented():
    assert [f"{file}: {key}" for file, key in settings() if f"`{key}`" not in ALL_TEXT] == []


def test_every_environment_variable_is_documented():
    variables = set(re.findall(r"SLICECAST_[A-Z]+", Path(config.__file__).read_text(encoding="utf-8")))
    assert variables and [name for name in variables if f"`{name}`" not in ALL_TEXT] == []


def test_the_table_of_errors_is_complete_and_right():
    def family(error: type) -> Iterator[type]:
        yield error
        for child in error.__subclasses__():
            if child.__module__ == errors.__name__:
                yield from family(child)

    table = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    said = {name: (int(code), int(status)) for name, code, status in ERROR_ROW.findall(table)}
    kinds = [kind for kind in family(errors.SlicecastError) if kind is not errors.SlicecastError]
    assert said == {kind.__name__: (main.exit_code(kind("")), kind.status) for kind in kinds}
    assert set(re.findall(r"[├└]── (\w+)", errors.__doc__)) == said.keys()


def is_runnable(line: str, known: dict[str, Any]) -> bool:
    """Whether a command line as shown names a command that exists, and options it has."""
    name = next((name for name in known if f"{line} ".startswith(f"{name} ")), None)
    options = set(re.findall(r"(?<= )--[a-z][a-z-]*", line)) - {"--help"}
    return name is not None and options <= long_options(known[name])


def test_commands_shown_in_code_exist():
    code = "\n".join(code_blocks(ALL_TEXT, "", "sh", "bash")).replace("\\\n", " ")
    shown = re.findall(r"^\s*(?:\$ )?(slicecast [a-z].*)$", code, re.MULTILINE)
    known = dict(commands())
    assert shown and [line for line in shown if not is_runnable(line, known)] == []


def test_make_commands_exist():
    code = "\n".join(code_blocks(ALL_TEXT, "", "sh", "bash") + re.findall(r"`([^`\n]+)`", prose(ALL_TEXT)))
    assert set(re.findall(r"\bmake ([a-z][a-z-]+)", code)) <= make_targets()


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page):
    broken = []
    for target in LINK.findall(prose(page.read_text(encoding="utf-8"))):
        path, _, fragment = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = (page.parent / path).resolve() if path else page
        headings = HEADING.findall(file.read_text(encoding="utf-8")) if file.suffix == ".md" and file.is_file() else []
        if not file.exists() or (fragment and fragment not in map(anchor, headings)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_python_examples_run(page, monkeypatch):
    """Every Python block is a session of ``>>>`` lines; a page's blocks share their names."""
    monkeypatch.chdir(ROOT)
    blocks = code_blocks(page.read_text(encoding="utf-8"), "python", "py", "pycon")
    assert [block for block in blocks if ">>> " not in block] == []
    names: dict[str, Any] = {}
    for block in blocks:
        example = doctest.DocTestParser().get_doctest(block, names, page_id(page), page_id(page), 0)
        failed = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, clear_globs=False).failed
        names = example.globs
        assert failed == 0, block


PROMISE = re.compile(r"^\| ([^|]+) \| ((?:`tests/\S+::\w+`(?:, )?)+) \|$", re.MULTILINE)


SHOWN = re.compile(r"^```text\n(\w+: )(\d+) voxels.*\n(annotate next: .*)\n", re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["README.md", "docs/guide.md"])
def test_segmenting_as_shown_gives_what_is_shown(name, tmp_path, monkeypatch):
    """With the bundled model; the number of voxels may be off by 2 % where another processor rounds otherwise."""
    monkeypatch.delenv("SLICECAST_MODEL", raising=False)
    page = (ROOT / name).read_text(encoding="utf-8")
    (tmp_path / "sample-data").symlink_to(ROOT / "sample-data")
    blocks = [code for code in code_blocks(page, "sh") if code.startswith("slicecast segment sample-data")]
    assert blocks
    program = f"{sys.executable} -m slicecast.cli.main"
    said = ""
    for code in blocks:
        command = ["sh", "-ec", code.replace("slicecast", program, 1)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said += done.stdout
    for structure, voxels, following in SHOWN.findall(page):
        found = re.search(rf"^{structure}(\d+) voxels", said, re.MULTILINE)
        assert found is not None and int(found[1]) == pytest.approx(int(voxels), rel=0.02)
        assert following in said.splitlines()


def test_every_promise_of_security_names_tests_that_there_are():
    section = (ROOT / "docs" / "security.md").read_text(encoding="utf-8").split("\n## What is promised")[1]
    rows = [line for line in section.partition("\n## ")[0].splitlines() if line.startswith("| ")]
    promises = PROMISE.findall("\n".join(rows))
    assert len(promises) == len(rows) - 2, "every row but the two headings names a promise and tests"
    for file, name in re.findall(r"`(tests/\S+)::(\w+)`", section):
        assert re.search(rf"^def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), f"{file}::{name}"
