"""A picture of an instance for clients that show no pixels of their own."""

from io import BytesIO

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixel_data_handlers.util import apply_modality_lut, apply_voi_lut

from slicecast.errors import NotFound


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
