"""Who labels what: an append-only, hash-chained list of events, and everything that follows from it."""
