"""The campaign behind the contract: leases, drafts, and what is written down of a submitted label."""
