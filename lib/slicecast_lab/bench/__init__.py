"""Proofs and measurements against a real server and real code paths."""
