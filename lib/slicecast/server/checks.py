"""What is looked at before MONAI Label's own code sees a request."""

from typing import Any

from fastapi import HTTPException
from monailabel.interfaces.utils.app import app_instance

from slicecast.server.routes import json_object

FIXED_KEYS = ("image", "model", "session", "file", "description")
"""Keys of a request that come from the address or the server; MONAI Label would let `params` replace them."""


def check_infer(arguments: dict[str, Any]) -> None:
    """Refuse an infer request that names no image, or whose `params` would replace what the address says.

    Raises:
        HTTPException: 422 with the reason.
    """
    params = json_object(arguments.get("params") or "{}", "params")
    replaced = [key for key in FIXED_KEYS if key in params]
    if replaced:
        raise HTTPException(422, detail=f"'params' must not hold '{replaced[0]}'; it belongs into the address.")
    if not (arguments.get("image") or arguments.get("session_id") or arguments.get("file")):
        raise HTTPException(422, detail="The request names no image. Add ?image= or ?session_id=, or send a file.")
    if getattr(arguments.get("output"), "value", None) == "dicom_seg":
        raise HTTPException(422, detail="DICOM SEG is not offered as an answer. Ask for output=image.")


def check_train(arguments: dict[str, Any]) -> None:
    """Refuse to start the training of a model that cannot be trained.

    Raises:
        HTTPException: 404.
    """
    known = app_instance().info()["trainers"]
    model = arguments.get("model")
    if model is not None and model not in known:
        raise HTTPException(404, detail=f"There is no trainer '{model}'. Known: {', '.join(known) or 'none'}.")
