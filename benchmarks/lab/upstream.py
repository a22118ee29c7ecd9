"""The lean upstream as a process on the load's core, and its control."""

from __future__ import annotations

import http.client
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks.lab.process import LOAD_CORE, process, python
from benchmarks.lab.requests import USERS
from benchmarks.lab.study_run import Lab
from benchmarks.lab.upstream_control import BEHAVE, COUNTS, Behaviour, UpstreamCounts


class LeanUpstream(NamedTuple):
    """`urls`: by source. Control calls block: not during load, except from another thread."""

    pid: int
    urls: Mapping[str, str]

    def behave(self, behaviour: Behaviour) -> None:
        """Set the behaviour and reset the counts."""
        self._control("POST", BEHAVE, msgspec.json.encode(behaviour))

    def seen(self) -> UpstreamCounts:
        return msgspec.json.decode(self._control("GET", COUNTS, b""), type=UpstreamCounts)

    def _control(self, method: str, target: str, body: bytes) -> bytes:
        connection = http.client.HTTPConnection(next(iter(self.urls.values())).removeprefix("http://"), timeout=30)
        try:
            connection.request(method, target, body)
            answer = connection.getresponse()
            response_body = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise ValueError(f"the upstream answered {answer.status}: {response_body.decode()}")
        return response_body


@contextmanager
def start_upstream(lab: Lab, *, users: int = USERS, behaviour: Behaviour | None = None) -> Iterator[LeanUpstream]:
    """Start it with `users` users, from `benchmarks.lean_upstream.FIRST_USER` on."""
    log = Path(tempfile.mkdtemp(prefix="upstream-", dir=lab.directory)) / "log"
    with process(LOAD_CORE, *python("benchmarks.lean_upstream", "--users", str(users)), log=log) as child:
        ports = msgspec.json.decode(child.first_line, type=dict[str, int])
        started = LeanUpstream(child.pid, {name: f"http://127.0.0.1:{port}" for name, port in ports.items()})
        started.behave(behaviour or Behaviour())
        yield started
