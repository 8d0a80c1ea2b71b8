"""Training the bundled model from nothing."""
