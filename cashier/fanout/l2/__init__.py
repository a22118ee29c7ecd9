"""The second cache level (L2), shared by all workers in Valkey or Redis.

`valkey_cache` is the entry point.
"""
