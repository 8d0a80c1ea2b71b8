"""Which image is next: strategies, and the scores that they read."""
