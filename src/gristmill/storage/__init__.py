"""Where results live: the ledger, its segments, chunks, views and claims."""
