"""Propagation of prompts through a volume. Knows models only through :mod:`slicecast.engine.ports`."""
