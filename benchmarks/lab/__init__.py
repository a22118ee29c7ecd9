"""Shared tools of the studies: processes on their own cores, service, upstream, load and clocks."""

from benchmarks.lab.study_run import Lab

__all__ = ["Lab"]
