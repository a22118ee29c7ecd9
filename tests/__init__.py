"""Sentences about what must hold."""
