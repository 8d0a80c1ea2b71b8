"""How far an object goes on past the last slice known to show it, by how it tapers."""

import math


def room(area: int, *, widest: int, distance: int, taper: float) -> float:
    """Return for how many slices an object may go on; infinity where its shape does not say.

    The areas of an ellipsoid fall with the square of the distance from its widest slice: with areas A there and a at a
    distance d, it ends d / sqrt(1 - a / A) from there.

    Args:
        area: pixels of its last slice, a.
        widest: pixels of its widest slice, A.
        distance: slices between the two, d.
        taper: so many times as far as the ellipsoid it may go, and one slice at least; 0: as far as it likes.
    """
    if taper == 0 or distance == 0 or area >= widest:
        return math.inf
    return max(1, math.ceil(taper * distance * (1 / math.sqrt(1 - area / widest) - 1)))
