"""Nothing in the package runs what a file or a request holds; read from the source with ``ast``."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lib" / "slicecast"
SOURCES = {file.relative_to(PACKAGE).as_posix(): file.read_text("utf-8") for file in sorted(PACKAGE.rglob("*.py"))}

BUILTINS = {"eval", "exec", "compile", "__import__"}
MODULES = {"marshal", "shelve", "dill", "cloudpickle", "joblib", "jsonpickle"}
PICKLE_NAMES = {"UnpicklingError"}
"""What may be used of `pickle`: the error that refuses one."""
HARMLESS = {("joblib", "Parallel"), ("joblib", "delayed")}
"""What may be imported from them: it spreads work over this machine and reads no file."""
OWN_PIPE = "inference/processes.py"
"""Pickles what the server and the processes that it started say to each other, over an unnamed pipe of theirs."""
METHODS = {("os", "system"), ("os", "popen"), ("yaml", "load"), ("yaml", "unsafe_load"), ("yaml", "full_load")}


def dotted(node: ast.AST) -> tuple[str, str]:
    """Return (module, name) of `module.name`, ("", name) of a plain name."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return node.value.id, node.attr
    return "", getattr(node, "id", "")


def keyword(call: ast.Call, name: str) -> object:
    return next((getattr(k.value, "value", "?") for k in call.keywords if k.arg == name), None)


def wrong_call(call: ast.Call) -> str | None:
    name = dotted(call.func)
    if name in METHODS or (not name[0] and name[1] in BUILTINS):
        return ".".join(name)
    if name == ("torch", "load") and keyword(call, "weights_only") is not True:
        return "torch.load without weights_only=True"
    if name in {("np", "load"), ("numpy", "load")} and keyword(call, "allow_pickle") not in (None, False):
        return "numpy.load with pickle"
    return "shell=True" if keyword(call, "shell") not in (None, False) else None


def wrong_import(node: ast.AST) -> str | None:
    if isinstance(node, ast.ImportFrom) and {(node.module, alias.name) for alias in node.names} <= HARMLESS:
        return None
    names = [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", "") or ""]
    return next((name for name in names if name.split(".")[0] in MODULES), None)


def faults(source: str) -> list[str]:
    """Return what could run what it reads."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom) and (name := wrong_import(node)):
            found.append(name)
        if isinstance(node, ast.ImportFrom) and node.module == "pickle":
            found += [f"pickle.{alias.name}" for alias in node.names if alias.name not in PICKLE_NAMES]
        if isinstance(node, ast.Attribute) and dotted(node)[0] == "pickle" and node.attr not in PICKLE_NAMES:
            found.append(f"pickle.{node.attr}")
        if isinstance(node, ast.Call) and (name := wrong_call(node)):
            found.append(name)
    return found


def test_nothing_runs_what_it_reads():
    found = {file: wrong for file, source in SOURCES.items() if (wrong := faults(source))}
    assert {name.split(".")[0] for name in found.pop(OWN_PIPE)} == {"pickle"} and not found


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')",
        "exec(text)",
        "import pickle\npickle.load(f)",
        "from pickle import loads",
        "import joblib",
        "from joblib import Parallel, load",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "np.load(f, allow_pickle=True)",
        "yaml.load(f)",
        "subprocess.run(x, shell=True)",
        "os.system(x)",
    ],
)
def test_the_test_can_fail(source):
    assert faults(source)


def test_what_is_fine():
    fine = "import pickle\ntorch.load(f, weights_only=True)\nre.compile(x)\nyaml.safe_load(f)\npickle.UnpicklingError"
    assert faults(fine) == []
