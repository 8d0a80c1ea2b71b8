"""A process that has imported the server, and forks one for each line it reads: a start then takes a second, not ten.

A line is JSON: `port`, `log`, and MONAI Label's `settings`. Answers with the server's process id.
"""

import json
import os
import signal
import sys
import warnings

warnings.simplefilter("ignore")
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what the server prints is no answer

import uvicorn  # noqa: E402
from monailabel.config import settings  # noqa: E402

from slicecast.server.app import create_app  # noqa: E402


def serve(asked: dict) -> None:
    """Be a server until killed."""
    log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for name, value in asked["settings"].items():
        setattr(settings, name, value)
    uvicorn.run(create_app(), host="127.0.0.1", port=asked["port"], log_level="warning")


signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    child = os.fork()
    if not child:
        serve(json.loads(line))
        os._exit(0)
    print(child, file=answers, flush=True)
