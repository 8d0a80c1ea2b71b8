"""`make demo`: the product proved headless on the sample data."""
