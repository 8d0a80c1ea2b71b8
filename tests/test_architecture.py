"""The rules of docs/architecture.md, read from the source with ``ast``: layers, sizes, no work on import."""

import ast
import graphlib
import importlib.metadata
import json
import re
import statistics
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lib" / "slicecast"
LAB = ROOT / "lib" / "slicecast_lab"


def trees(package: Path) -> dict[Path, ast.Module]:
    """Parse every source file of a package, by its path in it."""
    return {path.relative_to(package): ast.parse(path.read_text(encoding="utf-8")) for path in package.rglob("*.py")}


PRODUCT, LABORATORY = trees(PACKAGE), trees(LAB)
TREES = PRODUCT | {Path("lab") / file: tree for file, tree in LABORATORY.items()}
"""Every source file by its path; those of the laboratory below `lab`."""

Layers = tuple[set[str], ...]

LAYERS: Layers = (
    {"errors", "config", "files", "databases"},
    {"volume"},
    {"prompts", "dicom"},
    {"engine", "active"},
    {"campaign"},  # shows how well confidences held, by the measures of active/
    {"models"},
    {"training"},
    {"inference"},
    {"labelling"},
    {"server"},
    {"cli", "demo"},
)
"""Imports point to an earlier line only; names on one line do not import each other (but the first line's may)."""

LAB_LAYERS: Layers = ({"generated"}, {"evaluation", "training"}, {"simulation"}, {"benchmarks", "cli"})
"""The laboratory's own; any of it may import any of the product."""

ONLY_IN = {
    "sam2": {"models"},
    "hydra": {"models"},
    "monailabel": {"labelling", "server", "cli", "demo"},
    "typer": {"cli", "demo"},
}
"""Third-party packages that only these parts may import."""

IMPORTS_BY_NAME = {"cli/main.py", "cli/doctor.py", "__init__.py"}
"""The two entry points: the command line imports a command when it runs, the package a name when it is used; and the
command that must run where packages are missing."""

HTTP_ERRORS = {"server/errors.py", "labelling/tasks/infer.py"}
"""The files that know `HTTPException`: the handlers of routes, and the tasks, which MONAI Label calls without them."""

APP_OF = {"server/dependencies.py"}
"""The one file that asks MONAI Label for the app; everybody else is given it."""

MAX_FILE_LINES, MAX_FUNCTION_LINES = 500, 60
MEDIAN_FUNCTION_LINES, P90_FUNCTION_LINES = 8, 20

Function = ast.FunctionDef | ast.AsyncFunctionDef


def part_of(file: Path) -> str:
    """Return a file's name in LAYERS: the folder in the package, or the module directly in it."""
    return file.parts[0].removesuffix(".py")


def nodes() -> Iterator[tuple[Path, ast.AST]]:
    """Yield every node of every file."""
    for file, tree in TREES.items():
        for node in ast.walk(tree):
            yield file, node


def functions() -> Iterator[tuple[Path, Function]]:
    """Yield every function and method."""
    return ((file, node) for file, node in nodes() if isinstance(node, Function))


def imported(node: ast.AST) -> list[str]:
    """Return the dotted names of an import; ``from slicecast import config`` gives ``slicecast.config``."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def own_parts(node: ast.AST, package: str = "slicecast") -> list[str]:
    """Return the parts of a package that an import reaches into."""
    names = (name.split(".") for name in imported(node))
    return [name[1] for name in names if name[0] == package and len(name) > 1]


def levels(layers: Layers) -> dict[str, int]:
    """Return the number of the line that each part stands on."""
    return {name: level for level, names in enumerate(layers) for name in names}


def may_import(here: str, other: str, layers: Layers) -> bool:
    level = levels(layers)
    if here in layers[0] and other in layers[0]:
        return True
    return here == other or level.get(other, -1) < level[here]


def breaches(file: Path, tree: ast.AST, layers: Layers = LAYERS, package: str = "slicecast") -> list[str]:
    """Return what a file imports against the direction."""
    here = part_of(file)
    parts = (part for node in ast.walk(tree) for part in own_parts(node, package))
    return [f"{file}: {part}" for part in parts if not may_import(here, part, layers)]


def length(function: Function) -> int:
    """Count the lines of a function without its docstring."""
    lines = function.end_lineno - function.lineno + 1
    docstring = function.body[0] if ast.get_docstring(function) is not None else None
    return lines - (docstring.end_lineno - docstring.lineno + 1 if docstring else 0)


PACKAGES = [(PRODUCT, LAYERS, "slicecast"), (LABORATORY, LAB_LAYERS, "slicecast_lab")]


@pytest.mark.parametrize(("files", "layers", "_name"), PACKAGES)
def test_every_part_has_a_layer(files, layers, _name):
    assert {part_of(file) for file in files} - {"__init__"} == set(levels(layers))


@pytest.mark.parametrize(("files", "layers", "package"), PACKAGES)
def test_imports_point_down_only(files, layers, package):
    inside = {file: tree for file, tree in files.items() if part_of(file) != "__init__"}
    assert [breach for file, tree in inside.items() for breach in breaches(file, tree, layers, package)] == []


def test_the_product_does_not_import_the_laboratory():
    names = [(str(file), name) for file, tree in PRODUCT.items() for node in ast.walk(tree) for name in imported(node)]
    assert [pair for pair in names if pair[1].split(".")[0] == "slicecast_lab"] == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def f():\n    from slicecast.models import registry", ["models"]),
        ("import slicecast.server.app", ["server"]),
        ("from slicecast import active, volume", ["active"]),
        ("from slicecast.engine.ports import X", []),
    ],
)
def test_the_direction_test_can_fail(source, found):
    assert breaches(Path("engine/x.py"), ast.parse(source)) == [f"engine/x.py: {part}" for part in found]


def pieces(package: str, part: str) -> dict[str, set[str]]:
    """Return what each piece of a part (a module, or a folder as a whole) imports of the part's other pieces."""
    found: dict[str, set[str]] = {}
    files = PRODUCT if package == "slicecast" else LABORATORY
    for file in (file for file in files if len(file.parts) > 1 and file.parts[0] == part):
        piece = file.parts[1].removesuffix(".py")
        names = [name.split(".") for node in ast.walk(files[file]) for name in imported(node)]
        others = {name[2] for name in names if name[:2] == [package, part] and len(name) > 2}
        found.setdefault(piece, set()).update(others - {piece})
    return {piece: others & found.keys() for piece, others in found.items()}


@pytest.mark.parametrize(
    ("package", "part"),
    sorted({(package, file.parts[0]) for files, _, package in PACKAGES for file in files if len(file.parts) > 1}),
)
def test_the_pieces_of_a_part_do_not_import_in_circles(package, part):
    found = pieces(package, part)
    assert set(graphlib.TopologicalSorter(found).static_order()) == found.keys()  # a CycleError names the circle


def files_naming(word: str) -> set[str]:
    """Return the product's files whose code or docstrings hold a word."""
    return {file.as_posix() for file in PRODUCT if word in (PACKAGE / file).read_text(encoding="utf-8")}


def test_errors_become_http_in_few_places():
    assert files_naming("HTTPException") <= HTTP_ERRORS


def test_the_app_is_asked_for_in_one_place():
    assert files_naming("app_instance") <= APP_OF


STILL_TWICE: set[str] = set()
"""Class names that have two meanings; to be emptied, never added to."""


def test_a_class_name_means_one_thing():
    count = Counter(node.name for _, node in nodes() if isinstance(node, ast.ClassDef))
    assert {name for name, times in count.items() if times > 1} <= STILL_TWICE


REQUEST_STEP = re.compile(r"^\d+\. `(?P<file>[\w/]+\.py)` -> `(?P<type>\w+)`: ", re.MULTILINE)


def names_in(file: str) -> set[str]:
    """Return the classes that a file defines, and the names that it imports."""
    found = list(ast.walk(PRODUCT[Path(file)]))
    imports = {alias.name for node in found if isinstance(node, ast.ImportFrom) for alias in node.names}
    return imports | {node.name for node in found if isinstance(node, ast.ClassDef)}


def test_the_way_of_a_request_is_as_the_documentation_says():
    """Each file is there, and it and the next one both name the type that goes from one to the other."""
    steps = REQUEST_STEP.findall((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))
    assert len(steps) >= 15
    receivers = [file for file, _ in steps[1:]] + [steps[-1][0]]
    wrong = [
        f"{name} does not name {passed}"
        for (file, passed), receiver in zip(steps, receivers, strict=True)
        for name in (file, receiver)
        if passed not in names_in(name)
    ]
    assert wrong == []


FORM = re.compile(r"^\| `(?P<type>\w+)` \| `(?P<file>[\w/]+\.py)` `(?P<maker>\w+)` \|", re.MULTILINE)
MOST_FORMS = 4


@pytest.mark.parametrize("what", ["a prompt", "an answer"])
def test_the_forms_between_http_and_network_are_as_the_documentation_says(what):
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.partition(f"| form of {what} |")[2].partition("\n\n")[0]
    rows = FORM.findall(table)
    makers = {
        (file.as_posix(), function.name, word)
        for file, function in functions()
        for word in re.findall(r"\w+", ast.unparse(function.returns) if function.returns else "")
    }
    assert [row for row in rows if (row[1], row[2], row[0]) not in makers] == []
    assert len(rows) == table.count("\n|") - 1 == MOST_FORMS


def test_no_relative_imports():
    assert [str(file) for file, node in nodes() if isinstance(node, ast.ImportFrom) and node.level] == []


def test_own_modules_are_imported_at_the_top_only():
    """But for commands: their help must not wait for torch."""
    hidden = [
        f"{file}: {function.name} imports {part}"
        for file, function in functions()
        if "cli" not in file.parts
        for node in ast.walk(function)
        for part in own_parts(node)
    ]
    assert hidden == []


def test_only_the_command_line_and_the_package_import_by_name():
    names = {"import_module", "__import__"}
    users = {file.as_posix() for file, node in nodes() if {getattr(node, "attr", ""), getattr(node, "id", "")} & names}
    assert users <= IMPORTS_BY_NAME


@pytest.mark.parametrize("package", ONLY_IN)
def test_third_party_packages_stay_where_they_belong(package):
    users = {
        part_of(file)
        for file, tree in PRODUCT.items()
        for node in ast.walk(tree)
        for name in imported(node)
        if name.split(".")[0] == package
    }
    assert users <= ONLY_IN[package]


def stated(*extras: str) -> set[str]:
    """Return the distributions that requirements.txt and extras of pyproject.toml name."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    optional = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    lines += [line for extra in extras for line in optional[extra]]
    return {canonicalize_name(Requirement(line).name) for line in lines if line and not line.startswith("#")}


@pytest.mark.parametrize(("files", "extras"), [(PRODUCT, ["ray"]), (LABORATORY, ["lab", "ray"])])
def test_every_package_used_is_a_direct_dependency(files, extras):
    """The product's in requirements.txt; the laboratory's there or in an extra. Ray may be absent."""
    used = {name.split(".")[0] for tree in files.values() for node in ast.walk(tree) for name in imported(node)}
    distributions = importlib.metadata.packages_distributions()
    foreign = used - sys.stdlib_module_names - {"slicecast", "slicecast_lab"}
    offered = [{canonicalize_name(d) for d in distributions.get(name, [name])} for name in foreign]
    assert [names for names in offered if not names & stated(*extras)] == []  # several share a name such as `google`


def test_files_are_short():
    files = [file for package in (PACKAGE, LAB) for file in package.rglob("*.py")]
    lengths = {str(file): len(file.read_text(encoding="utf-8").splitlines()) for file in files}
    assert {file: lines for file, lines in lengths.items() if lines > MAX_FILE_LINES} == {}


def test_functions_are_short():
    lengths = {f"{file}:{function.lineno} {function.name}": length(function) for file, function in functions()}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_FUNCTION_LINES} == {}
    assert statistics.median(lengths.values()) <= MEDIAN_FUNCTION_LINES
    assert statistics.quantiles(lengths.values(), n=10)[-1] <= P90_FUNCTION_LINES


def test_no_print_and_no_eval_in_the_library():
    product = [(str(file), node) for file, tree in PRODUCT.items() for node in ast.walk(tree)]
    calls = [(file, getattr(node.func, "id", "")) for file, node in product if isinstance(node, ast.Call)]
    assert [call for call in calls if call[1] in ("print", "eval", "exec")] == []


def test_only_config_reads_our_environment_variables():
    readers = {
        str(file)
        for file, tree in PRODUCT.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("SLICECAST_")
    }
    assert readers <= {"config.py"}


def modules_of(part: str) -> list[str]:
    """Return the dotted names of a part's modules."""
    files = [file for file in PRODUCT if part_of(file) == part]
    return [".".join(("slicecast", *file.with_suffix("").parts)).removesuffix(".__init__") for file in files]


def after_importing(*modules: str) -> dict:
    """Import in a new interpreter; return what that left: modules, threads, whether CUDA woke up."""
    code = f"""
import importlib, json, sys, threading
for name in {modules!r}:
    importlib.import_module(name)
torch = sys.modules.get("torch")
print(json.dumps({{
    "modules": sorted(sys.modules),
    "threads": threading.active_count(),
    "cuda": bool(torch and torch.cuda.is_initialized()),
}}))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def test_importing_slicecast_is_light():
    after = after_importing("slicecast")
    assert not {"torch", "sam2", "hydra", "monailabel"} & set(after["modules"])
    assert after["threads"] == 1


def test_importing_every_layer_below_monai_label_starts_nothing():
    below = [part for names in LAYERS[:-3] for part in sorted(names)]
    after = after_importing(*(module for part in below for module in modules_of(part)))
    assert after["threads"] == 1 and not after["cuda"]


def test_the_engine_runs_without_sam2():
    assert "sam2" not in after_importing(*modules_of("engine"))["modules"]


FREE = ("contract", "deploy", "desktop", "durability", "e2e", "browser", "fuzz", "golden")


def test_tests_stand_in_the_folder_of_what_they_test():
    """tests/volume/ is for lib/slicecast/volume/, tests/lab/benchmarks/ for lib/slicecast_lab/benchmarks/."""
    tests = [file.relative_to(ROOT / "tests").parent for file in (ROOT / "tests").glob("*/**/test_*.py")]
    folders = {file.parent for file in TREES}
    assert {str(test) for test in tests if test.parts[0] not in FREE and test not in folders} == set()
