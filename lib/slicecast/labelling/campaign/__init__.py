"""The campaign service: leases, drafts, and comparison of submitted labels."""
