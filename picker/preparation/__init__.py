"""Data producers that ask somebody else, and how a request waits for them."""
