import subprocess
import sys

import pytest
from typer.testing import CliRunner

import slicecast
from slicecast import errors
from slicecast.cli import main

LIGHT_START_S = 1.5
"""Most processor time that asking for help may take; importing torch alone takes longer."""


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


def test_help_is_quick_and_needs_no_torch():
    code = (
        "import sys, time; from slicecast.cli.main import app; app(['--help'], standalone_mode=False);"
        "assert not {'torch', 'sam2', 'monai', 'SimpleITK'} & set(sys.modules);"
        "sys.stderr.write(str(time.process_time()))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert float(done.stderr) < LIGHT_START_S
