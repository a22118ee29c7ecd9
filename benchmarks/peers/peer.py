"""The interface of a peer: a program that makes the same calls with a bare merge."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple, TypeAlias

from benchmarks.lab import Lab
from benchmarks.lab.process import PROGRAM_CORE, process
from benchmarks.lab.requests import check_bare_merge, consultations
from benchmarks.lab.response_reader import ResponseReader
from benchmarks.lab.service import Served

# The address of each source, such as "http://127.0.0.1:1234".
Upstreams: TypeAlias = Mapping[str, str]

PROGRAMS = Path(__file__).parent / "programs"
_TIMEOUT_S = 5.0


class Peer(NamedTuple):
    """`absent`: the reason why it cannot run here, with a remedy, or None.

    `start`: on the program's core, until the block ends. `caches`: it caches the same sources as
    cashier, for the same time.
    """

    name: str
    title: str
    caches: bool
    absent: Callable[[], str | None]
    start: Callable[[Lab, Upstreams], AbstractContextManager[Served]]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(directory: Path, port: int, *words: str, env: Mapping[str, str] | None = None) -> Iterator[Served]:
    """Start a peer. It is ready when it has answered the consultation of the crowd's first user."""
    with process(PROGRAM_CORE, *words, env=env, ready=lambda: _answers(port), log=directory / "log") as child:
        yield Served(child.pid, port)


def _answers(port: int) -> bool:
    answer = ResponseReader()
    try:
        with socket.create_connection(("127.0.0.1", port), _TIMEOUT_S) as connection:
            connection.sendall(consultations(1)[0])
            while data := connection.recv(65_536):
                if answer.feed(data):
                    return answer.status == 200 and check_bare_merge(answer.body()) is None
    except OSError:  # does not listen yet
        pass
    return False
