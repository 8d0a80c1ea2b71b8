"""Scores volumes in the background, from a labelled case as the model's memory."""
