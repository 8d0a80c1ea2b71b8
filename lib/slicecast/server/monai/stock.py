"""What is looked at before MONAI Label's own code sees a request."""

from pathlib import Path
from typing import Any

from fastapi import HTTPException, UploadFile
from monailabel.interfaces.utils.app import app_instance

from slicecast.server.names import require_file_name, require_plain_text
from slicecast.server.settings import server_settings
from slicecast.server.uploads import upload_ending

CHECKSUMS = ("SHA256", "SHA512", "MD5")


def check_train(arguments: dict[str, Any]) -> None:
    """Refuse to start the training of a model that cannot be trained; MONAI Label would start a process that fails.

    Raises:
        HTTPException: 404.
    """
    known = app_instance().info()["trainers"]
    model = arguments.get("model")
    if model is not None and model not in known:
        raise HTTPException(404, detail=f"There is no trainer '{model}'. Known: {', '.join(known) or 'none'}.")


def check_names(arguments: dict[str, Any]) -> None:
    """Refuse names that no file could have, before they reach a file system or a log.

    Raises:
        HTTPException: 422.
    """
    for key, value in arguments.items():
        if isinstance(value, str) and key not in ("params", "info"):
            require_plain_text(value, key)
        elif isinstance(value, UploadFile):
            upload_ending(value)
    checksum = arguments.get("check_sum")
    if checksum and ":" in checksum and checksum.partition(":")[0] not in CHECKSUMS:
        raise HTTPException(422, detail=f"'check_sum' begins with none of {', '.join(CHECKSUMS)}. Write SHA256:...")


def check_model(arguments: dict[str, Any]) -> None:
    """Refuse models that the app does not have.

    Raises:
        HTTPException: 404, or 422 for what is no name at all.
    """
    check_names(arguments)
    known, model = app_instance().info()["models"], arguments.get("model")
    if model is not None and model not in known:
        raise HTTPException(404, detail=f"There is no model '{model}'. Known: {', '.join(known)}.")


def check_session(arguments: dict[str, Any]) -> None:
    """Refuse uploads of too many files or of odd names, and to send a session's folder as if it were a file.

    Raises:
        HTTPException: 413, 422.
    """
    check_names(arguments)
    files, most = arguments.get("files") or [], server_settings().limits.files
    if len(files) > most:
        raise HTTPException(413, detail=f"{len(files)} files were sent; at most {most} are taken. Send an archive.")
    for file in files:
        require_file_name(file.filename or "")
    if arguments.get("image"):
        session = app_instance().sessions().get_session(arguments["session_id"], update_ts=False)
        if session and Path(session.image).is_dir():
            raise HTTPException(422, detail="The session holds several files and cannot be sent as one. Leave 'image'.")
