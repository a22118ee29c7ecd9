"""Bytes to and from upstreams. Knows nothing of payments and nothing of plans."""
