"""What all studies share: processes on cores of their own, the service, the upstream, load and clocks. Measures nothing by itself."""

from benchmarks.lab.lab import Lab

__all__ = ["Lab"]
