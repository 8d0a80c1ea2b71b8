"""Several binary parts in one message, as DICOMweb sends and takes them (`multipart/related`)."""

from collections.abc import Sequence
from io import BytesIO
from uuid import uuid4

from fastapi.responses import Response
from pydicom import dcmwrite
from pydicom.dataset import Dataset
from requests_toolbelt.multipart import decoder

from slicecast.errors import InputError

DICOM = "application/dicom"
BYTES = "application/octet-stream"


def related(contents: Sequence[tuple[bytes, str]], *, kind: str) -> Response:
    """Pack parts, each with its content type; `kind` is the type of the whole."""
    boundary = uuid4().hex
    pieces = []
    for content, content_type in contents:
        head = f"--{boundary}\r\nContent-Type: {content_type}\r\nContent-Length: {len(content)}\r\n\r\n"
        pieces += [head.encode(), content, b"\r\n"]
    pieces.append(f"--{boundary}--\r\n".encode())
    return Response(
        b"".join(pieces), headers={"Content-Type": f'multipart/related; type="{kind}"; boundary={boundary}'}
    )


def parts(content: bytes, content_type: str) -> list[bytes]:
    """Unpack a message of parts.

    Raises:
        InputError: it is none, or holds no part.
    """
    if not content_type.lower().startswith("multipart/"):
        raise InputError(f"The content is '{content_type[:60]}'; send multipart/related with parts of {DICOM}.")
    try:
        found = [part.content for part in decoder.MultipartDecoder(content, content_type).parts]
    except (
        decoder.ImproperBodyPartContentException,
        decoder.NonMultipartContentTypeException,
        AttributeError,
    ) as error:
        raise InputError(f"The message cannot be split into its parts ({error}). Say its boundary.") from error
    if not found:
        raise InputError("The message has no part. Send at least one instance.")
    return found


def encoded(data: Dataset) -> bytes:
    """Write an instance as a DICOM file."""
    stream = BytesIO()
    dcmwrite(stream, data, write_like_original=False)
    return stream.getvalue()
