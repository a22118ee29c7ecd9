"""Capacity model: simulates cores, upstream calls and Valkey operations for a rate."""
