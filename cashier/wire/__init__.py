"""Transports: bytes to and from upstreams. Knows nothing of payments and nothing of plans."""
