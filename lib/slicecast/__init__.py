"""Slicecast: one annotated slice becomes a segmented volume."""

__version__ = "0.1.0"

__all__ = ["__version__"]
