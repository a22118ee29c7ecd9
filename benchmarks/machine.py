"""The machine and the versions on which the figures were measured."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

from benchmarks.results import Machine

PACKAGES = ("uvloop", "httptools", "msgspec", "uvicorn", "aiohttp")


def describe(peers: dict[str, str]) -> Machine:
    """Describe this machine. `peers`: versions of the programs measured beside ours."""
    ours = {"Python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}}
    return Machine(
        _processor(), len(os.sched_getaffinity(0)), f"{platform.system()} {platform.release()}", {**ours, **peers}
    )


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
