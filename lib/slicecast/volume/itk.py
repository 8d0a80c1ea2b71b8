"""The few things about SimpleITK that every reader needs: one-line reasons and a quiet console."""

import logging
import re
from functools import cache

import SimpleITK as sitk

from slicecast.errors import VolumeError

logger = logging.getLogger(__name__)

_NOISE = re.compile(r"^(Exception thrown in .*|/\S+:\d+:|.*ITK ERROR: ?|sitk::ERROR: ?)", re.MULTILINE)


class _LogInsteadOfStderr(sitk.LoggerBase):
    """Sends what ITK would print to the console to this module's logger."""

    def DisplayText(self, text: str) -> None:
        logger.debug(text.strip())

    DisplayErrorText = DisplayWarningText = DisplayGenericOutputText = DisplayDebugText = DisplayText

    def __str__(self) -> str:
        return "slicecast log"


@cache
def quiet_itk() -> sitk.LoggerBase:
    """Route ITK's console messages to `logging` (debug level), from the first read on."""
    log = _LogInsteadOfStderr()
    log.SetAsGlobalITKLogger()
    return log


def reason(error: RuntimeError) -> str:
    """Shorten an ITK exception to its own reason, one line, without file names of ITK's sources."""
    text = _NOISE.sub("", str(error))
    text = re.sub(r"\w+\(0x[0-9a-f]+\): ?", "", text)
    return " ".join(text.split())[:200].rstrip(". ") or "unknown reason"


def require_scalar(reader: sitk.ImageFileReader, path: object) -> None:
    """Raise VolumeError for colour, vector and complex pixels."""
    kind = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    components = reader.GetNumberOfComponents()
    if components != 1 or "complex" in kind:
        raise VolumeError(
            f"{path} holds {components} numbers per voxel ({kind}), such as colour or vectors. "
            "Give a scan of one number per voxel."
        )
