"""Scans on their grids: reading, writing, orientation, grey values and slices."""

from slicecast.volume.grid import Geometry, Reorientation, Volume, canonicalise
from slicecast.volume.reading import read_volume, write_mask, write_volume
from slicecast.volume.slices import SliceAxis, SliceStack, choose_axis
from slicecast.volume.windowing import Window, choose_window, normalise, window_names

__all__ = [
    "Geometry",
    "Reorientation",
    "SliceAxis",
    "SliceStack",
    "Volume",
    "Window",
    "canonicalise",
    "choose_axis",
    "choose_window",
    "normalise",
    "read_volume",
    "window_names",
    "write_mask",
    "write_volume",
]
