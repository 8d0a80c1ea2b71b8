import subprocess
import sys

import pytest
from typer.testing import CliRunner

import slicecast
from slicecast import errors
from slicecast.cli import main
from slicecast.config import project_dir


def below(words, command):
    """Return a command and those below it, each with the words that are typed."""
    own = [(words, command)]
    return own + [one for name, sub in getattr(command, "commands", {}).items() for one in below([*words, name], sub)]


TREE = [
    one
    for prefix, files in (([], main.product_command_files()), (["lab"], main.lab_command_files()))
    for name, file in files.items()
    for one in below([*prefix, name], main.load_command(name, file))
]
"""Every command and group."""

HELPED = [[], ["lab"], *(words for words, _ in TREE)]
WRONG = (
    ["segment", "none.nii.gz", "-o", "out.nii.gz", "--point", "a=1,1,1"],
    ["segment", "SCAN", "-o", "nowhere/out.nii.gz", "--point", "a=1,1,1"],
    ["segment", "SCAN", "-o", "out.txt", "--point", "a=1,1,1"],
    ["segment", "SCAN", "-o", "out.nii.gz", "--point", "a=1,1"],
    ["segment", "SCAN", "-o", "out.nii.gz", "--point", "a=1,1,1", "--model", "sam9"],
    ["segment", "SCAN", "-o", "out.nii.gz", "--point", "a=999,1,1"],
    ["segment", "SCAN", "-o", "out.nii.gz", "--point", "a=1,1,1", "--axis", "up"],
    ["segment", "SCAN", "-o", "out.nii.gz", "--point", "a=1,1,1", "--range", "9:3"],
    ["segment", "SCAN", "-o", "out.nii.gz", "--point", "a=1,1,1", "--range", "0:999"],
    ["segment", "SCAN", "-o", "out.nii.gz", "--point", "a=1,1,1", "--range", "5:9"],
    ["segment", "SCAN", "-o", "out.nii.gz", "--box", "a=3,3,1,3,9,5"],
    ["segment", "SCAN", "-o", "out.nii.gz", "--point", "a=1,1,1", "--window", "bone9"],
    ["segment", "SCAN", "-o", "out.nii.gz", "--point", "a=1,1,1", "--slice-strategy", "best"],
    ["replay"],
    ["replay", "log.jsonl", "-o", "nowhere/out.nii.gz"],
    ["labels", "import", "nowhere", "--studies", "."],
    ["labels", "import", ".", "--studies", ".", "--map", "liver"],
    ["models", "pull", "sam9"],
    ["models", "rollback", "--studies", "nowhere"],
    ["train", "finetune", "--studies", "nowhere"],
    ["train", "finetune", "--studies", ".", "--model", "sam9"],
    ["train", "finetune", "--studies", "."],
    ["train", "automatic", "--studies", "."],
    ["train", "go-on", "."],
    ["campaign", "status", "--studies", "nowhere"],
    ["campaign", "verify", "--studies", ".", "--head", "x"],
    ["campaign", "export", "--studies", ".", "-o", "out"],
    ["campaign", "report", "--studies", ".", "-o", "report.doc"],
    ["campaign", "report", "--studies", ".", "-o", "report.html"],
    ["campaign", "add-gold", "--studies", ".", "case", "truth.nii.gz"],
    ["backup", "--studies", ".", "-o", "nowhere/backup.tar"],
    ["restore", "nowhere.tar", "--studies", "."],
    ["upgrade", "--studies", "nowhere"],
    ["doctor", "--studies", "nowhere"],
    ["users", "add", "anna", "--role", "king"],
    ["users", "remove", "nobody"],
    ["models", "verify", "sam9"],
    ["models", "versions", "--studies", "nowhere"],
    ["export", ".", "-o", "out", "--format", "jpeg"],
    ["export", ".", "-o", "SCAN"],
    ["serve", "--studies", "nowhere"],
    ["serve", "--conf", "labels"],
    ["serve", "--studies", ".", "--conf", "nonsense=1"],
    ["serve", "--studies", ".", "--verbose", "LOUD"],
    ["serve", "--studies", ".", "--tls-cert", "nowhere.pem"],
    ["lab", "evaluate", "--data", "nowhere", "--label", "1"],
    ["lab", "evaluate", "--data", ".", "--label", "one"],
    ["lab", "evaluate", "--data", ".", "--label", "1", "--prompt", "scribble"],
    ["lab", "evaluate", "--data", ".", "--label", "1", "--json", "nowhere/out.json"],
    ["lab", "evaluate", "--data", ".", "--protocol", "loose"],
    ["lab", "finetuning", "--data", ".", "--sizes", "few"],
    ["lab", "finetuning", "--data", "nowhere"],
    ["lab", "memory-report", "--data", "nowhere"],
    ["lab", "simulate", "--data", ".", "--experiment", "voxels"],
    ["lab", "simulate", "--data", ".", "--plot", "curves.gif"],
    ["lab", "simulate", "--data", ".", "--store", "nowhere/done.jsonl"],
    ["lab", "simulate", "--data", ".", "--budgets", "1,two"],
    ["lab", "simulate", "--data", ".", "--experiment", "slices", "--strategies", "best"],
    ["lab", "simulate", "--data", ".", "--slices", "best"],
    ["lab", "train", "nano", "--config", "nowhere.yaml"],
    ["lab", "train", "export-nano", "nano.safetensors", "--folder", "nowhere"],
    ["lab", "train", "promote", "SCAN", "--set", "evidence"],
)
"""Each is refused; SCAN stands for a scan."""

HEAVY = {"torch", "sam2", "monai", "monailabel", "matplotlib", "pandas"}


def imports_after(words, folder):
    """Run a command in a new interpreter; return its exit code, and what is heavy of what it imported."""
    code = (
        "import sys\nfrom slicecast.cli.main import main\n"
        f"sys.argv = {['slicecast', *words]!r}\n"
        "try:\n    main()\nexcept SystemExit as end:\n"
        f"    sys.stderr.write('HEAVY ' + str(end.code) + ' ' + ' '.join({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True, text=True)
    exit_code, *heavy = done.stderr.rpartition("HEAVY ")[2].split()
    return int(exit_code), heavy


def invoke(*arguments):
    return CliRunner().invoke(main.app, arguments)


def test_help_lists_every_command_with_its_line_and_examples():
    result = invoke("--help")
    assert result.exit_code == 0
    for name in main.command_files():
        assert f" {name} " in result.output
    assert "List, download and check the models' weights." in result.output
    assert "slicecast segment scan.nii.gz" in result.output


def test_every_command_loads_and_helps():
    for name in main.command_files():
        result = invoke(name, "--help")
        assert result.exit_code == 0, result.output
        assert f"{name}" in result.output


def test_no_arguments_shows_the_help():
    assert "Commands" in invoke().output


def test_version():
    assert invoke("--version").output == f"slicecast {slicecast.__version__}\n"


def test_an_unknown_command_is_named():
    result = invoke("segmnt")
    assert result.exit_code == 2 and "segmnt" in result.output


def test_an_error_is_one_sentence_without_traceback():
    result = invoke("models", "pull", "sam3")
    assert result.exit_code == 2
    assert result.stderr.startswith("slicecast: No model 'sam3'. Known models:")
    assert "Traceback" not in result.output and result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.PromptError, 2),
        (errors.UnknownModel, 2),
        (errors.Conflict, 1),
        (errors.WeightsMissing, 1),
        (errors.OutOfMemory, 1),
        (errors.Cancelled, 130),
    ],
)
def test_exit_codes(error, code):
    assert main.exit_code(error("x")) == code


@pytest.mark.parametrize("words", HELPED, ids=" ".join)
def test_help_does_not_wait_for_torch(words, tmp_path):
    assert imports_after([*words, "--help"], tmp_path) == (0, [])


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_wrong_input_does_not_wait_for_torch(words, tmp_path):
    scan = str(project_dir("sample-data") / "studies" / "ct_abdomen_b.nii.gz")
    assert imports_after([scan if word == "SCAN" else word for word in words], tmp_path) == (2, [])


@pytest.mark.parametrize("words", HELPED, ids=" ".join)
def test_every_help_has_an_example(words):
    assert "slicecast" in invoke(*words, "--help").output.partition("Example")[2]


@pytest.mark.parametrize("name", ["nano", "export-nano", "promote", "volumetric"])
def test_commands_of_the_laboratory_keep_their_names_without_lab(name):
    result = CliRunner().invoke(main.app, ["train", name, "--help"])
    assert result.exit_code == 0, result.output
    assert f"train {name}" in result.output
