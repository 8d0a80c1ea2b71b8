"""`/campaign/`: the pages of who labels what, and the review."""
