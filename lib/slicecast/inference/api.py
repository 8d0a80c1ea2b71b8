"""The Python way in: one call from an image and some clicks to a mask."""

from pathlib import Path

import numpy as np

from slicecast.engine.options import EngineOptions
from slicecast.inference.results import SegmentResult
from slicecast.inference.segment import SegmentRequest, SegmentService
from slicecast.prompts import MaskPrompt
from slicecast.prompts.model import IJK
from slicecast.prompts.parsing import Named, collect_prompts


def segment(
    image: str | Path,
    *,
    points: Named[IJK] | None = None,
    negative: Named[IJK] | None = None,
    boxes: Named[tuple[IJK, IJK]] | None = None,
    masks: Named[np.ndarray | MaskPrompt] | None = None,
    absent: Named[int] | None = None,
    axis: str = "auto",
    range: tuple[int, int] | None = None,
    window: str = "auto",
    options: EngineOptions | None = None,
    slice_strategy: str = "",
    service: SegmentService | None = None,
) -> SegmentResult:
    """Segment one or several objects of an image.

    Each kind of prompt is a list, or a mapping from object names to lists. Indices are those of the stored
    image, from 0.

    Args:
        image: file or DICOM folder.
        points: voxels (i, j, k) on the object.
        negative: voxels (i, j, k) beside it.
        boxes: pairs of opposite corners (i, j, k), both included.
        masks: painted slices, bool [k, j, i] on the image's grid.
        absent: slices that do not show the object.
        axis: ``auto``, ``axial``, ``coronal`` or ``sagittal``.
        range: half-open, slices along the axis to stay within.
        window: window's name, ``low:high`` or ``auto``.
        slice_strategy: which slice is suggested next: ``mid``, ``strided``, ``worst``, ``disagree``, ``value`` or
            ``extent``. Default: that of ``configs/engine.yaml``.
        service: keeps model, images and encoded slices between calls. Default: a new one, with the default
            model; pass your own when you ask more than once.

    Raises:
        SlicecastError: see :meth:`SegmentService.segment`.
    """
    prompts = collect_prompts(points=points, negative=negative, boxes=boxes, masks=masks, absent=absent)
    request = SegmentRequest(Path(image), prompts, axis, range, window, options=options, slice_strategy=slice_strategy)
    return (service or SegmentService()).segment(request)
