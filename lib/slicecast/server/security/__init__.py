"""The gate around every route: who asks, what they may do, and how much and what they may send."""
