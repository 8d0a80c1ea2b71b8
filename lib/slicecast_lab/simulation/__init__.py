"""Simulated campaigns: a robot that knows the truth annotates through the product, and strategies are compared."""
