"""What is looked at before MONAI Label's own code sees a request."""

from typing import Any

from fastapi import HTTPException
from monailabel.interfaces.utils.app import app_instance


def check_train(arguments: dict[str, Any]) -> None:
    """Refuse to start the training of a model that cannot be trained; MONAI Label would start a process that fails.

    Raises:
        HTTPException: 404.
    """
    known = app_instance().info()["trainers"]
    model = arguments.get("model")
    if model is not None and model not in known:
        raise HTTPException(404, detail=f"There is no trainer '{model}'. Known: {', '.join(known) or 'none'}.")
