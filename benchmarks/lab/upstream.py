"""The lean upstream as a process on the load's core, with its control. What it answers with is in `benchmarks.lean_upstream`."""

from __future__ import annotations

import http.client
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks.lab.lab import Lab
from benchmarks.lab.process import LOAD_CORE, process, python
from benchmarks.lab.requests import USERS
from benchmarks.lab.upstream_control import BEHAVE, COUNTS, Behaviour, UpstreamCounts


class LeanUpstream(NamedTuple):
    """`urls`: each source has an address of its own. Its control blocks for a moment: ask while no load runs, or from another thread."""

    pid: int
    urls: Mapping[str, str]

    def behave(self, behaviour: Behaviour) -> None:
        """From now on; what it has seen is counted anew."""
        self._control("POST", BEHAVE, msgspec.json.encode(behaviour))

    def seen(self) -> UpstreamCounts:
        return msgspec.json.decode(self._control("GET", COUNTS, b""), type=UpstreamCounts)

    def _control(self, method: str, target: str, body: bytes) -> bytes:
        connection = http.client.HTTPConnection(next(iter(self.urls.values())).removeprefix("http://"), timeout=30)
        try:
            connection.request(method, target, body)
            answer = connection.getresponse()
            said = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise ValueError(f"the upstream said {answer.status}: {said.decode()}")
        return said


@contextmanager
def start_upstream(lab: Lab, *, users: int = USERS, behaviour: Behaviour | None = None) -> Iterator[LeanUpstream]:
    """Knows `users` users, from `benchmarks.lean_upstream.FIRST` on."""
    log = Path(tempfile.mkdtemp(prefix="upstream-", dir=lab.directory)) / "log"
    with process(LOAD_CORE, *python("benchmarks.lean_upstream", "--users", str(users)), log=log) as child:
        ports = msgspec.json.decode(child.first_line, type=dict[str, int])
        found = LeanUpstream(child.pid, {name: f"http://127.0.0.1:{port}" for name, port in ports.items()})
        found.behave(behaviour or Behaviour())
        yield found
