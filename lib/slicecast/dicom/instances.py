"""Parts of an instance that a viewer fetches one by one: frames, header as JSON, large values, a rendered picture."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import generate_pixel_data_frame
from pydicom.pixel_data_handlers.util import apply_modality_lut, apply_voi_lut
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian

from slicecast.errors import InputError, NotFound

LARGE_BYTES = 1024
"""Larger values are left out of the JSON and have a URL of their own."""

MEDIA_TYPES = {
    "1.2.840.10008.1.2.5": "image/dicom-rle",
    "1.2.840.10008.1.2.4.50": "image/jpeg",
    "1.2.840.10008.1.2.4.51": "image/jpeg",
    "1.2.840.10008.1.2.4.57": "image/jpeg",
    "1.2.840.10008.1.2.4.70": "image/jpeg",
    "1.2.840.10008.1.2.4.80": "image/jls",
    "1.2.840.10008.1.2.4.81": "image/jls",
    "1.2.840.10008.1.2.4.90": "image/jp2",
    "1.2.840.10008.1.2.4.91": "image/jp2",
}
"""Of compressed frames, by transfer syntax."""


def frame_type(syntax: str) -> str:
    """Return the content type of a frame; frames that are not compressed are sent as little endian."""
    if not UID(syntax).is_compressed or syntax == "1.2.840.10008.1.2.1.99":  # deflated: unpacked on reading
        return f"application/octet-stream; transfer-syntax={ExplicitVRLittleEndian}"
    return f"{MEDIA_TYPES.get(syntax, 'application/octet-stream')}; transfer-syntax={syntax}"


def read_frames(data: Dataset, numbers: Sequence[int]) -> list[bytes]:
    """Return frames of an instance, counted from 1, compressed as they are stored.

    Raises:
        NotFound: it has no pixels, or fewer frames.
    """
    count = int(data.get("NumberOfFrames") or 1)
    if "PixelData" not in data:
        raise NotFound(f"The instance {data.SOPInstanceUID} holds no pixels. Ask for one that does.")
    if any(not 1 <= number <= count for number in numbers):
        raise NotFound(f"The instance {data.SOPInstanceUID} has frames 1 to {count}, not {list(numbers)[:8]}.")
    syntax = data.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        frames = list(generate_pixel_data_frame(data.PixelData, count))
        return [frames[number - 1] for number in numbers]
    return [_native(data, number - 1, swap=syntax == ExplicitVRBigEndian) for number in numbers]


def _native(data: Dataset, number: int, *, swap: bool) -> bytes:
    samples = int(data.Rows) * int(data.Columns) * int(data.get("SamplesPerPixel", 1))
    if data.BitsAllocated == 1:  # frames of single bits follow one another without a gap
        first = number * samples
        packed = np.frombuffer(data.PixelData, np.uint8)[first // 8 : (first + samples + 7) // 8]
        bits = np.unpackbits(packed, bitorder="little")[first % 8 :][:samples]
        return np.packbits(bits, bitorder="little").tobytes()
    size = samples * int(data.BitsAllocated) // 8
    frame = data.PixelData[number * size : (number + 1) * size]
    return np.frombuffer(frame, np.uint16).byteswap().tobytes() if swap and data.BitsAllocated == 16 else frame


def header_json(data: Dataset, address: str) -> dict[str, Any]:
    """Return all but the pixels as DICOM JSON; large values become URLs below `address`."""
    return data.to_json_dict(
        bulk_data_threshold=LARGE_BYTES,
        bulk_data_element_handler=lambda element: f"{address}/bulkdata/{element.tag:08X}",
        suppress_invalid_tags=True,
    )


def bulk_value(data: Dataset, tag: str) -> bytes:
    """Return one value of an instance, by its tag in eight hexadecimal digits.

    Raises:
        InputError: that is no tag.
        NotFound: the instance has no such value of bytes.
    """
    try:
        number = int(tag, 16)
    except ValueError as error:
        raise InputError(f"'{tag[:20]}' is no tag; give eight hexadecimal digits such as 7FE00010.") from error
    value = data[number].value if number in data else None
    if not isinstance(value, bytes):
        raise NotFound(f"The instance {data.SOPInstanceUID} has no bytes under the tag {tag[:20]}.")
    return value


def render(data: Dataset) -> bytes:
    """Draw the first frame in the instance's own window, as JPEG.

    Raises:
        NotFound: it has no pixels, or they cannot be unpacked here.
    """
    try:
        pixels = data.pixel_array
    except (AttributeError, NotImplementedError, RuntimeError, ValueError) as error:
        raise NotFound(
            f"The instance {data.SOPInstanceUID} has no pixels that can be drawn. Fetch its frames."
        ) from error
    if int(data.get("NumberOfFrames") or 1) > 1:
        pixels = pixels[0]
    if data.get("SamplesPerPixel", 1) == 1:
        pixels = _grey(apply_voi_lut(apply_modality_lut(pixels, data), data))
        pixels = 255 - pixels if data.PhotometricInterpretation == "MONOCHROME1" else pixels
    stream = BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def _grey(pixels: np.ndarray) -> np.ndarray:
    low, high = float(pixels.min()), float(pixels.max())
    return (pixels - low) * (255.0 / (high - low or 1.0))
