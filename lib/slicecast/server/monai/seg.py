"""The answer to `output=dicom_seg`: the mask as a DICOM SEG of the image's series."""

from io import BytesIO
from pathlib import Path
from typing import Any

from fastapi.responses import Response

from slicecast.dicom.catalogue import Catalogue
from slicecast.dicom.labels import seg_of_label
from slicecast.errors import InputError

DICOM = "application/dicom"


def require_image_of_studies(image: str, *, sent_along: bool) -> None:
    """Refuse what is no series of the studies, before anything is computed.

    Raises:
        InputError: the image is an upload; there are no DICOM images that a segmentation could refer to.
    """
    if sent_along or not image:
        raise InputError(
            "A DICOM SEG refers to the images it was made from, so only an image of the studies can have one. "
            "Name one with 'image', or leave out output=dicom_seg."
        )


def seg_answer(result: dict[str, Any], image: str, catalogue: Catalogue, *, user: str = "") -> Response:
    """Send an infer request's mask as DICOM SEG, one segment for each object that was asked for.

    Args:
        result: what the app answered; its `file` stays.
        image: id of the image, or UID of its series.
        catalogue: knows the series.
        user: who asked.

    Raises:
        InputError: the image is not served as DICOM.
        VolumeError: the series cannot be referred to.
    """
    series = catalogue.of_image(image)
    if series is None:
        raise InputError(f"The image '{image}' is no DICOM series, so it has no DICOM SEG. Ask for output=image.")
    objects = result["params"].get("objects") or {}
    info = {"label_info": [{"name": name, "idx": said["value"]} for name, said in objects.items()], "user": user}
    data, stream = seg_of_label(Path(result["file"]), series, info), BytesIO()
    data.save_as(stream, write_like_original=False)
    headers = {"Content-Disposition": f'attachment; filename="{data.SOPInstanceUID}.dcm"'}
    return Response(stream.getvalue(), media_type=DICOM, headers=headers)
