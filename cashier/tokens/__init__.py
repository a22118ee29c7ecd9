"""Signed tokens that callers keep: their content. No state, no clock, no I/O."""
