"""The peers in Python: cashier's bare fan-out, tuned aiohttp, and FastAPI with httpx."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from benchmarks.lab import Lab
from benchmarks.lab.process import python
from benchmarks.lab.service import Served
from benchmarks.peers.peer import Peer, Upstreams, free_port, running


def _absent(*packages: str) -> str | None:
    missing = [each for each in packages if find_spec(each) is None]
    return f"{' and '.join(missing)} not installed: pip install {' '.join(missing)}" if missing else None


@contextmanager
def _start(program: str, lab: Lab, upstreams: Upstreams) -> Iterator[Served]:
    directory = Path(tempfile.mkdtemp(prefix=f"{program}-", dir=lab.directory))
    port = free_port()
    words = python(f"benchmarks.peers.programs.{program}", str(port), json.dumps(dict(upstreams)))
    with running(directory, port, *words) as served:
        yield served


OWN_FANOUT = Peer(
    "own_fanout", "our fan-out, bare merge", False, partial(_absent, "cashier"), partial(_start, "own_fanout")
)
AIOHTTP = Peer(
    "aiohttp", "aiohttp gather", False, partial(_absent, "aiohttp", "uvloop"), partial(_start, "aiohttp_gather")
)
FASTAPI_HTTPX = Peer(
    "fastapi_httpx",
    "FastAPI + httpx",
    False,
    # Without sniffio httpcore looks for it on disk at every call, which is a third of its cost.
    partial(_absent, "fastapi", "httpx", "sniffio", "uvicorn", "uvloop", "httptools"),
    partial(_start, "fastapi_httpx"),
)
