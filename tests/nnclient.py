"""The unmodified client of nnInteractive, and a real server on a port for it."""

import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import uvicorn
from labelserver import app_settings

from slicecast.server.app import create_app

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from nnInteractive.inference.remote import ServerAtCapacityError, SessionExpiredError
    from nnInteractive.inference.remote import nnInteractiveRemoteInferenceSession as Session
    from nnInteractive.inference.remote.serialization import pack_array, unpack_array

__all__ = [
    "ServerAtCapacityError",
    "Session",
    "SessionExpiredError",
    "pack_array",
    "refusal",
    "running",
    "send",
    "unpack_array",
]


@contextmanager
def running(folder: Path, studies: Path) -> Iterator[tuple[str, object]]:
    """Run the whole application in a thread; yield its address and the application."""
    # the server sets MONAI_LABEL_AUTH_ENABLE, and it is one for the whole process
    with app_settings(folder, studies, MONAI_LABEL_AUTH_ENABLE=False):
        app = create_app()
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive(), "the server did not start"
                time.sleep(0.01)
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", app
        finally:
            server.should_exit = True
            thread.join()


def send(session: Session, image: np.ndarray, spacing: Sequence[float] = (1.0, 1.0, 1.0)) -> np.ndarray:
    """Send an image as the plugins do; return the buffer of its mask, which the client keeps up to date."""
    session.set_image(image[None], {"spacing": spacing})
    session.set_target_buffer(np.zeros(image.shape, dtype=np.uint8))
    return session.target_buffer


def refusal(address: str, **options: str | None) -> Exception:
    """Return the error with which a client is refused, which leaves its connection open; here it is closed."""
    try:
        Session(address, **options).close()
    except Exception as error:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if isinstance(frame.f_locals.get("self"), Session):
                frame.f_locals["self"]._http.close()
        return error
    raise AssertionError(f"{address} let a client in")
