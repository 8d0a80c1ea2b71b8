"""A strip of slices with the outline of a mask, as PNG: what a result looks like at a glance."""

import io
from collections.abc import Collection

from slicecast.errors import GeometryError
from slicecast.inference.pictures import new_figure, outline, show_slice, spread
from slicecast.inference.studies import Study
from slicecast.volume import SliceStack, Volume, choose_axis, normalise

COUNT = 8
INCH = 1.7


def draw_strip(study: Study, mask: Volume | None = None, *, count: int = COUNT, must: Collection[int] = ()) -> bytes:
    """Draw slices through the mask (or through the whole scan), numbered as stored; return a PNG.

    Args:
        mask: on the scan's stored grid; each value is an object.
        count: how many slices.
        must: slices, as stored, to show in any case.

    Raises:
        GeometryError: the mask lies on another grid.
    """
    turn = study.reorientation
    if mask is not None and mask.array.shape != turn.source.shape_kji:
        raise GeometryError(
            f"The mask has {mask.array.shape} voxels, its image {turn.source.shape_kji}. Save it again."
        )
    axis = choose_axis(study.volume.geometry)
    scan = SliceStack(study.volume.array, axis)
    labels = None if mask is None else SliceStack(turn.to_canonical_array(mask.array), axis)
    window = study.window("auto")
    asked = {turn.to_canonical_slice(axis, n) for n in must}
    numbers = set(spread(labels, count=count, total=scan.count)) | {n for n in asked if 0 <= n < scan.count}
    figure = new_figure(INCH * len(numbers), INCH * 1.16, background="black")
    shown = sorted(numbers, key=lambda n: turn.to_source_slice(axis, n))
    for plot, n in zip(figure.subplots(1, len(shown), squeeze=False).flat, shown, strict=True):
        show_slice(plot, normalise(scan.slice(n), window), axis=axis, geometry=study.volume.geometry)
        if labels is not None:
            outline(plot, labels.slice(n), width=1.2)
        plot.set_title(str(turn.to_source_slice(axis, n)), fontsize=8, color="white", pad=2)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=90)
    return png.getvalue()
