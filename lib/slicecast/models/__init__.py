"""Models behind the engine's port. The only place that imports ``sam2`` and ``hydra``."""
