"""Scripts that measure and write the pages of `docs/results/`."""
