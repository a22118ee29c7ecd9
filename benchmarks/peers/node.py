"""The peer in Node's http module."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.lab import Lab
from benchmarks.lab.service import Served
from benchmarks.peers.peer import PROGRAMS, Peer, Upstreams, free_port, running

# With the default of 16 MB for the young generation the objects of a consultation are copied often.
_OPTIONS = ("--max-semi-space-size=64",)


def binary() -> str | None:
    return shutil.which("node") or shutil.which("nodejs")


def absent() -> str | None:
    return None if binary() else "Node is not installed: apt-get install nodejs"


@contextmanager
def _start(lab: Lab, upstreams: Upstreams) -> Iterator[Served]:
    node, port = binary(), free_port()
    assert node is not None, absent()
    directory = Path(tempfile.mkdtemp(prefix="node-", dir=lab.directory))
    program = str(PROGRAMS / "node.js")
    with running(directory, port, node, *_OPTIONS, program, str(port), json.dumps(dict(upstreams))) as served:
        yield served


NODE = Peer("node", "Node http", False, absent, _start)
