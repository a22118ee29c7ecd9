"""Shared tools of the studies: processes on their own cores, service, upstream, load and clocks."""

from benchmarks.lab.lab import Lab

__all__ = ["Lab"]
