"""Runs commands of `slicecast` one after another, each in a fork of a process that has imported heavy packages already.

    python forks.py CALLS.json RESULTS.json [PACKAGE ...]

A call is ``{"entry": "module:function", "words": [...], "env": {...}}``, a result ``{"code": 0, "output": "..."}``.
"""

import importlib
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

LIMIT_S = 180


def run(call: dict[str, Any]) -> dict[str, Any]:
    """Carry out one call in a fork, and wait for it."""
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if child == 0:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            os._exit(_work(call))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        output.seek(0)
        return {"code": code, "output": output.read().decode(errors="replace")}


def _work(call: dict[str, Any]) -> int:
    signal.alarm(LIMIT_S)  # a server that is not refused would run for ever
    os.environ.update(call["env"])
    sys.argv = ["slicecast", *call["words"]]
    module, _, function = call["entry"].partition(":")
    code: Any = 0
    try:
        getattr(importlib.import_module(module), function)()
    except SystemExit as end:
        code = end.code
    except BaseException as error:
        print(repr(error))
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else int(code is not None)


if __name__ == "__main__":
    for name in sys.argv[3:]:
        importlib.import_module(name)
    asked, answered = map(Path, sys.argv[1:3])
    calls = json.loads(asked.read_text(encoding="utf-8"))
    answered.write_text(json.dumps([run(call) for call in calls]), encoding="utf-8")
